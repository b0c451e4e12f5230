-- Routes many envelopes: looks up where each user's sockets are, and publishes to each owning instance once, all its envelopes
-- in one message. The caller serves its own sockets itself.
--
-- KEYS[1] owners  HASH  user → entry
-- KEYS[2] leases  HASH  token → lease
-- ARGV[1] publish   PUBLISH, or SPUBLISH on a Cluster
-- ARGV[2] channels  what the name of an instance's channel begins with; the instance follows
-- ARGV[3] skipped   instances that are not published to, with a space before and after each; the caller is one of them
-- ARGV[4] grace     (ms)
-- ARGV[5] head      what each message begins with
-- ARGV[6] count     of envelopes
-- ARGV[7…] user, user, …, then envelope, envelope, … in the same order
-- Returns a number for each envelope, in that order: state + 4 × (reached + 65536 × sockets), being the user's state, how many other
-- instances took it, and how many sockets of the user they have. One number, for making them is a good part of the work.

local owners, leases = KEYS[1], KEYS[2]
local publish, channels, skipped, grace, head, count = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local users_at, envelopes_at = 6, 6 + count

local standing = standings(leases, redis_now(), grace)
local entries = redis.call('HMGET', owners, unpack(ARGV, users_at + 1, users_at + count))
local reply, batches, batch_of = {}, {}, {} -- batches: for each instance, its message, places in the reply, and sockets
local skip = {}
for instance in skipped:gmatch('%S+') do skip[instance] = true end

-- One owner's claim to sockets of a user; returns what state that puts the user in.
local function claim(token, sockets, envelope, place)
  local alive = standing[token]
  if alive ~= LIVE or sockets == '0' then return alive ~= DEAD and RECONNECTING or OFFLINE end
  local batch = batch_of[token]
  if batch == nil then
    local instance = token:match('^[^.]+')
    batch = not skip[instance] and {instance = instance, envelopes = {head}, places = {}, sockets = {}}
    batch_of[token] = batch
    if batch then batches[#batches + 1] = batch end
  end
  if batch then
    local n = #batch.places + 1
    batch.envelopes[n + 1], batch.places[n], batch.sockets[n] = envelope, place, sockets
  end
  return ONLINE
end

for i = 1, count do
  local entry, state, envelope = entries[i], OFFLINE, ARGV[envelopes_at + i]
  if entry then
    local token, sockets = entry:match('^%d+ ([^:]+):(%d+)$')
    if token then -- one owner, as nearly everybody has
      state = claim(token, sockets, envelope, i)
    else
      for token, sockets in entry:gmatch(' ([^:]+):(%d+)') do state = math.max(state, claim(token, sockets, envelope, i)) end
    end
  end
  reply[i] = state
end

for _, batch in ipairs(batches) do
  if redis.call(publish, channels .. batch.instance, table.concat(batch.envelopes)) > 0 then
    for n, place in ipairs(batch.places) do
      reply[place] = reply[place] + 4 + 4 * 65536 * batch.sockets[n]
    end
  end
end
return reply
