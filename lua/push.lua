-- Routes a batch of envelopes: looks up which instances own sockets of each user, and publishes one message
-- to each of these instances, with all its envelopes. Nothing is published to the caller, which serves its
-- own sockets itself.
--
-- KEYS[1] owners  HASH  user → entry
-- KEYS[2] leases  HASH  incarnation → lease
-- ARGV[1] publish   PUBLISH, or SPUBLISH on a Cluster
-- ARGV[2] channels  what the name of an instance's channel begins with; the instance follows
-- ARGV[3] grace     (ms)
-- ARGV[4] head      the first envelope of each message: the number of the batch
-- ARGV[5] count     how many envelopes there are
-- ARGV[6] numbers   a byte for each envelope: the number of its shared frame, from 1; 0: none. Empty: all 0
-- ARGV[7] caller    its incarnation. If its lease is not live, Redis has lost what the caller told it, and
--                   perhaps what others did
-- ARGV[8…] count users, then count envelopes in the same order, then the shared frames. A message has a
--          shared frame before the first of the envelopes in a row that need it.
--
-- Returns a number for each envelope, in their order:
--
--   state + 4 × instances + 4 × 65536 × sockets
--
--   state      of the user; UNKNOWN if nobody took it and Redis has lost what it held         2 bits
--   instances  how many other instances took the envelope, that is, listen to their channel  16 bits
--   sockets    how many sockets of the user these have                                       35 bits
--
-- It is one number because making answers is a good part of the work. A number of Lua is exact up to 53 bits.
-- So are these as long as fewer than 65,536 instances run, and no user has more than 2^35 sockets.
--
-- Messages are by instance and not by incarnation: two of one instance may be live, and it must get one
-- message of a batch. The text of an entry behind its time is read only once for all users who have the same:
-- most users who are on one instance do.
-- Uses: common, leases, entry

local owners, leases = KEYS[1], KEYS[2]
local publish, channels, grace, head, count = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local numbers, caller, users_at, envelopes_at, frames_at = ARGV[6], ARGV[7], 7, 7 + count, 7 + 2 * count
local ONE_INSTANCE, ONE_SOCKET = 4, 4 * 65536 -- in an answer
local status_of = lease_statuses(leases, redis_now(), grace)
local entries = redis.call('HMGET', owners, unpack(ARGV, users_at + 1, users_at + count))
local readings = {} -- text of an entry behind its time → what read_owners returned
local instances, message_of = {}, {[caller:match('^[^.]+')] = false} -- {parts, frame, taken}; false: none
local function message_for(incarnation)
  local instance = incarnation:match('^[^.]+')
  if message_of[instance] == nil then
    message_of[instance], instances[#instances + 1] = {parts = {head}}, instance
  end
  return message_of[instance]
end

-- Returns the answer (the user's state, until the messages are out), the messages that the user's envelopes
-- go into, and what each of these adds to the answer if it is taken.
local function read_owners(text)
  local reading = {answer = OFFLINE, messages = {}, adds = {}}
  for incarnation, sockets in text:gmatch(OWNERS) do
    if status_of[incarnation] == LIVE and tonumber(sockets) > 0 then
      reading.answer = ONLINE
      local message, k = message_for(incarnation), #reading.messages + 1
      if message then reading.messages[k], reading.adds[k] = message, ONE_INSTANCE + ONE_SOCKET * sockets end
    elseif status_of[incarnation] ~= DEAD then
      reading.answer = math.max(reading.answer, RECONNECTING)
    end
  end
  readings[text] = reading
  return reading
end

local found, sharing, find, sub, byte = {}, numbers ~= '', string.find, string.sub, string.byte
for i = 1, count do
  local entry = entries[i]
  if entry then
    local text = sub(entry, find(entry, ' ', 1, true) or #entry + 1) -- not since; unreadable: no owners
    local reading, frame = readings[text] or read_owners(text), sharing and byte(numbers, i) or 0
    found[i] = reading
    for k = 1, #reading.messages do
      local message, parts = reading.messages[k], reading.messages[k].parts
      if frame ~= 0 and frame ~= message.frame then
        message.frame, parts[#parts + 1] = frame, ARGV[frames_at + frame]
      end
      parts[#parts + 1] = ARGV[envelopes_at + i]
    end
  end
end

for _, instance in ipairs(instances) do
  local message = message_of[instance]
  message.taken = math.min(1, redis.call(publish, channels .. instance, table.concat(message.parts)))
end
for _, reading in pairs(readings) do
  for k, to in ipairs(reading.messages) do reading.answer = reading.answer + to.taken * reading.adds[k] end
end
local answers, nobody = {}, status_of[caller] == LIVE and OFFLINE or UNKNOWN -- nobody: if no one took it
for i = 1, count do answers[i] = math.max(nobody, found[i] and found[i].answer or OFFLINE) end
return answers
