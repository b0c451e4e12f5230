-- Reads the entries of some users, and the leases of the same moment.
--
-- KEYS[1] owners  HASH  user → entry
-- KEYS[2] leases  HASH  incarnation → lease
-- KEYS[3] seen    ZSET  offline or reconnecting user → when last online (ms)
-- ARGV[1…] users  at most 1000
-- Returns {now, leases, entries, seen}: now in ms; leases as incarnation, lease, …; entries and seen in the
-- order of the users, nil for a user who has none.
-- Uses: common

local owners, leases, seen = KEYS[1], KEYS[2], KEYS[3]

local last = {}
for i = 1, #ARGV do last[i] = redis.call('ZSCORE', seen, ARGV[i]) end
return {redis_now(), redis.call('HGETALL', leases), redis.call('HMGET', owners, unpack(ARGV)), last}
