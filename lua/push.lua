-- Routes many envelopes: looks up where each user's sockets are, and publishes to each owning instance once, all its envelopes
-- in one message. The caller serves its own sockets itself.
--
-- KEYS[1] owners  HASH  user → entry
-- KEYS[2] leases  HASH  token → lease
-- ARGV[1] publish   PUBLISH, or SPUBLISH on a Cluster
-- ARGV[2] channels  what the name of an instance's channel begins with; the instance follows
-- ARGV[3] grace     (ms)
-- ARGV[4] head      what each message begins with
-- ARGV[5] count     of envelopes
-- ARGV[6] numbers   a byte for each envelope: the number of its frame, if it has one in common with others; else 0. Empty: none has
-- ARGV[7] caller    its token. Its instance is not published to. If the token is not live, then Redis has lost what the caller told it,
--                   and so perhaps what others did
-- ARGV[8…] user, user, …, then envelope, envelope, … in the same order, then those frames. A message has a frame before the envelopes in a
--          row that need it.
-- Returns a number for each envelope, in that order: state + 4 × (reached + 65536 × sockets), being the user's state (UNKNOWN if nobody
-- took it and Redis has lost what it held), how many other instances took it, and how many sockets of the user they have. One number,
-- for making them is a good part of the work.
-- Uses: common, leases, entry

local owners, leases = KEYS[1], KEYS[2]
local publish, channels, grace, head, count = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local numbers, caller, users_at, envelopes_at, frames_at = ARGV[6], ARGV[7], 7, 7 + count, 7 + 2 * count

local standing = lease_statuses(leases, redis_now(), grace)
local entries = redis.call('HMGET', owners, unpack(ARGV, users_at + 1, users_at + count))
local batches, batch_of = {}, {} -- batches: for each instance the parts of its message, and whether it took that
batch_of[caller:match('^[^.]+')] = false

local function batch_for(token) -- by instance: two tokens of one may be live, and a call sends each instance one message
  local instance = token:match('^[^.]+')
  if batch_of[instance] == nil then
    batch_of[instance] = {instance = instance, parts = {head}}
    batches[#batches + 1] = batch_of[instance]
  end
  return batch_of[instance]
end

-- What the owners in an entry come to: the answer (its user's state, until the messages are out), the batches that its envelopes go into,
-- and what each adds if it is taken. It is worked out once for each text after since, which most users of one instance have in common.
local known = {}
local function read_owners(text)
  local read = {answer = OFFLINE, batches = {}, adds = {}}
  for token, sockets in text:gmatch(OWNERS) do
    if standing[token] == LIVE and tonumber(sockets) > 0 then
      read.answer = ONLINE
      local batch = batch_for(token)
      if batch then read.batches[#read.batches + 1], read.adds[#read.adds + 1] = batch, 4 + 4 * 65536 * sockets end
    elseif standing[token] ~= DEAD then
      read.answer = math.max(read.answer, RECONNECTING)
    end
  end
  known[text] = read
  return read
end

local found, sharing, find, sub, byte = {}, numbers ~= '', string.find, string.sub, string.byte
for i = 1, count do
  local entry = entries[i]
  if entry then
    local text = sub(entry, find(entry, ' ', 1, true) or #entry + 1) -- whatever is before it: to look costs more than it is worth
    local read = known[text] or read_owners(text)
    found[i] = read
    for k = 1, #read.batches do
      local batch, parts, frame = read.batches[k], read.batches[k].parts, sharing and byte(numbers, i) or 0
      if frame ~= 0 and frame ~= batch.frame then batch.frame, parts[#parts + 1] = frame, ARGV[frames_at + frame] end
      parts[#parts + 1] = ARGV[envelopes_at + i]
    end
  end
end

for _, batch in ipairs(batches) do
  batch.taken = redis.call(publish, channels .. batch.instance, table.concat(batch.parts)) > 0
end
for _, read in pairs(known) do
  for k, batch in ipairs(read.batches) do read.answer = read.answer + (batch.taken and read.adds[k] or 0) end
end
local reply, least = {}, standing[caller] == LIVE and OFFLINE or UNKNOWN -- the answer of whom nobody has
for i = 1, count do reply[i] = math.max(least, found[i] and found[i].answer or OFFLINE) end
return reply
