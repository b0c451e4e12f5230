-- Reads who the instances are, at one moment.
--
-- KEYS[1] instances  HASH  instance → JSON
-- KEYS[2] leases     HASH  token → lease, of the same shard
-- Returns {now, leases, records}: now in ms; leases as token, lease, …; records in no order.

local instances, leases = KEYS[1], KEYS[2]

return {redis_now(), redis.call('HGETALL', leases), redis.call('HVALS', instances)}
