-- Reads what is known of some users, at one moment.
--
-- KEYS[1] owners  HASH  user → entry
-- KEYS[2] leases  HASH  token → lease
-- KEYS[3] seen    ZSET  user → when last online (ms), of those who are not
-- ARGV[1…] users, at most 1000
-- Returns {now, leases, entries, seen}: now in ms; leases as token, lease, …; entries and seen in the order of the users, nil if none.

local owners, leases, seen = KEYS[1], KEYS[2], KEYS[3]

local last = {}
for i = 1, #ARGV do last[i] = redis.call('ZSCORE', seen, ARGV[i]) end
return {redis_now(), redis.call('HGETALL', leases), redis.call('HMGET', owners, unpack(ARGV)), last}
