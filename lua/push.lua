-- Routes many envelopes: looks up where each user's sockets are, and publishes to each owning instance once, all its envelopes
-- in one message. The caller serves its own sockets itself.
--
-- KEYS[1] owners  HASH  user → entry
-- KEYS[2] leases  HASH  token → lease
-- ARGV[1] publish   PUBLISH, or SPUBLISH on a Cluster
-- ARGV[2] channels  what the name of an instance's channel begins with; the instance follows
-- ARGV[3] skipped   instances that are not published to, with a space before and after each; the caller is one of them
-- ARGV[4] grace     (ms)
-- ARGV[5] count     of envelopes
-- ARGV[6…] user, user, …, then envelope, envelope, … in the same order
-- Returns {state, reached, sockets, state, reached, sockets, …} in that order: the user's state, how many other instances took the
-- envelope, and how many sockets of the user they have.

local owners, leases = KEYS[1], KEYS[2]
local publish, channels, skipped, grace, count = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local users_at, envelopes_at = 5, 5 + count

local standing = standings(leases, redis_now(), grace)
local entries = redis.call('HMGET', owners, unpack(ARGV, users_at + 1, users_at + count))
local batches, reply = {}, {} -- instance → the places of its envelopes in the reply, and its sockets
local skip = {}
for instance in skipped:gmatch('%S+') do skip[instance] = true end

for i = 1, count do
  local state, place = OFFLINE, 3 * i - 2
  for token, instance, sockets in (entries[i] or ''):gmatch(' (([^.]+)%.[^:]+):(%d+)') do
    local alive = standing[token]
    if alive == LIVE and sockets ~= '0' then
      state = ONLINE
      if not skip[instance] then
        local batch = batches[instance]
        if not batch then batch = {envelopes = {}, places = {}, sockets = {}}; batches[instance] = batch end
        local n = #batch.places + 1
        batch.envelopes[n], batch.places[n], batch.sockets[n] = ARGV[envelopes_at + i], place, tonumber(sockets)
      end
    elseif alive ~= DEAD and state == OFFLINE then
      state = RECONNECTING
    end
  end
  reply[place], reply[place + 1], reply[place + 2] = state, 0, 0
end

for instance, batch in pairs(batches) do
  if redis.call(publish, channels .. instance, table.concat(batch.envelopes)) > 0 then
    for n, place in ipairs(batch.places) do
      reply[place + 1] = reply[place + 1] + 1
      reply[place + 2] = reply[place + 2] + batch.sockets[n]
    end
  end
end
return reply
