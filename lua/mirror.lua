-- Sets how many sockets each of many users has under one token, and logs who came and who went. It works
-- although Redis is full.
--
-- KEYS[1] owners  HASH    user → entry
-- KEYS[2] leases  HASH    token → lease
-- KEYS[3] log     STREAM  changes of presence, capped
-- KEYS[4] seen    ZSET    user → when last online (ms), of those who are not
-- KEYS[5] clock   STRING  when a lease was last written (ms), by Redis' clock
-- ARGV[1] token
-- ARGV[2] version   mirror writes under this lease so far, as the caller counts them
-- ARGV[3] lifetime  of the renewed lease (ms)
-- ARGV[4] grace     (ms)
-- ARGV[5] log_cap   entries to keep in the log, about
-- ARGV[6] seen_for  how long an offline user is remembered (ms)
-- ARGV[7] seen_cap  offline users to remember, about
-- ARGV[8] known     so many of the users, the first ones, were mirrored before, whatever Redis holds of them now
-- ARGV[9…] user, sockets, ago, user, sockets, ago, …
--         sockets: n > 0 online, 0 dropped and in its grace, -1 the grace is over, -2 left on purpose: graces that run on other
--         instances are over too, -3 in its grace unless offline, -4 the same, and left on purpose. ago (ms): when the user came, if
--         online; else when the last went
-- Returns {OK, version} or {STALE_LEASE}: no such lease, a dead one, or another version; nothing was written.

local owners, leases, log, seen, clock = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local token, version, lifetime, grace = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local log_cap, seen_for, seen_cap, known, first = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), 9

local now = redis_now()
local lease, stands, rewritten = renewable_lease(leases, clock, token, now, grace)
if not lease or lease:match(' (%d+)') ~= version or stands == DEAD then return {STALE_LEASE} end

begin_writing(leases, clock, now, rewritten)
local next_version = string.format('%d', version + 1)
redis.call('HSET', leases, token, string.format('%d %s', now + lifetime, next_version))

local standing, found = standings(leases, now, grace)
local mine = token:match('^[^.]+%.')

local users = {}
for i = first, #ARGV, 3 do users[#users + 1] = ARGV[i] end
local entries = #users > 0 and redis.call('HMGET', owners, unpack(users))
local written, removed, came, left = {}, {}, {}, {} -- gathered, for each call from a script costs more than what it does

for place, user in ipairs(users) do
  local i = first + 3 * (place - 1)
  local sockets, at, entry = tonumber(ARGV[i + 1]), now - ARGV[i + 2], readable(entries[place])
  local before, since, others = OFFLINE, sockets > 0 and at or now, ''
  if entry then
    local dead
    before = entry_state(entry, standing)
    if before ~= OFFLINE then since = math.min(tonumber(entry:match('^%d+')), since) end
    others, dead = other_owners(entry, standing, mine, sockets == -2 or sockets == -4)
    if dead then record_vouched(seen, user, entry, standing, found) end
    if before == OFFLINE then record_change(log, log_cap, user, 'offline', now) end -- the sweep had not come by yet
  elseif place <= known and not redis.call('ZSCORE', seen, user) then
    before = ONLINE -- Redis lost the entry: coming was logged before, and going was not
  end

  if sockets < -2 and before ~= OFFLINE then sockets = 0 end
  local kept = sockets < 0 and others or others .. ' ' .. token .. ':' .. sockets
  local after = entry_state(kept, standing)
  if kept ~= '' then
    written[#written + 1], written[#written + 2] = user, string.format('%d', since) .. kept
  elseif entries[place] then
    removed[#removed + 1] = user
  end
  if before == OFFLINE and after ~= OFFLINE then record_change(log, log_cap, user, 'online', now) end
  if before ~= OFFLINE and after == OFFLINE then record_change(log, log_cap, user, 'offline', now) end
  if before ~= ONLINE and after == ONLINE then came[#came + 1] = user end
  if after ~= ONLINE and (before == ONLINE or after == RECONNECTING and before == OFFLINE) then left[#left + 1], left[#left + 2] = at, user end
end

if #left > 0 then trim_seen(seen, now - seen_for, seen_cap) end
if #removed > 0 then redis.call('HDEL', owners, unpack(removed)) end
if #came > 0 then redis.call('ZREM', seen, unpack(came)) end
if #written > 0 then redis.call('HSET', owners, unpack(written)) end
if #left > 0 then redis.call('ZADD', seen, unpack(left)) end
return {OK, tonumber(next_version)}
