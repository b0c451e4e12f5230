-- Routes many envelopes: looks up where each user's sockets are, and publishes to each owning instance once, all its envelopes
-- in one message. The caller serves its own sockets itself.
--
-- KEYS[1] owners  HASH  user → entry
-- KEYS[2] leases  HASH  token → lease
-- ARGV[1] publish   PUBLISH, or SPUBLISH on a Cluster
-- ARGV[2] channels  what the name of an instance's channel begins with; the instance follows
-- ARGV[3] sender    the calling instance, which is not published to
-- ARGV[4] grace     (ms)
-- ARGV[5] count     of envelopes
-- ARGV[6…] user, user, …, then envelope, envelope, … in the same order
-- Returns {state, reached, state, reached, …} in that order: the user's state, and how many other instances took the envelope.

local owners, leases = KEYS[1], KEYS[2]
local publish, channels, sender, grace, count = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local users_at, envelopes_at = 5, 5 + count

local standing = standings(leases, redis_now(), grace)
local entries = redis.call('HMGET', owners, unpack(ARGV, users_at + 1, users_at + count))
local batches, reply = {}, {} -- instance → the places of its envelopes

for i = 1, count do
  local state = OFFLINE
  for token, instance, sockets in (entries[i] or ''):gmatch(' (([^.]+)%.[^:]+):(%d+)') do
    local alive = standing[token]
    if alive == LIVE and sockets ~= '0' then
      state = ONLINE
      if instance ~= sender then
        local batch = batches[instance]
        if not batch then batch = {}; batches[instance] = batch end
        batch[#batch + 1] = i
      end
    elseif alive ~= DEAD and state == OFFLINE then
      state = RECONNECTING
    end
  end
  reply[2 * i - 1], reply[2 * i] = state, 0
end

for instance, batch in pairs(batches) do
  local message = {}
  for j = 1, #batch do message[j] = ARGV[envelopes_at + batch[j]] end
  if redis.call(publish, channels .. instance, table.concat(message)) > 0 then
    for j = 1, #batch do reply[2 * batch[j]] = reply[2 * batch[j]] + 1 end
  end
end
return reply
