-- Reads the entries of one step through all users, and the leases of the same moment.
--
-- KEYS[1] owners  HASH  user → entry
-- KEYS[2] leases  HASH  incarnation → lease
-- ARGV[1] cursor  of HSCAN; 0 begins
-- ARGV[2] count   entries to look at, about
-- Returns {now, leases, cursor, entries}: now in ms; leases as incarnation, lease, …; the next cursor, 0 at
-- the end; entries as user, entry, ….
-- Uses: common

local owners, leases = KEYS[1], KEYS[2]
local cursor, count = ARGV[1], ARGV[2]

local step = redis.call('HSCAN', owners, cursor, 'COUNT', count)
return {redis_now(), redis.call('HGETALL', leases), step[1], step[2]}
