-- Reads the records of all instances, and the leases of the same moment.
--
-- KEYS[1] instances  HASH  instance → JSON
-- KEYS[2] leases     HASH  incarnation → lease, of the same shard
-- Returns {now, leases, records}: now in ms; leases as incarnation, lease, …; records in no order.
-- Uses: common

local instances, leases = KEYS[1], KEYS[2]

return {redis_now(), redis.call('HGETALL', leases), redis.call('HVALS', instances)}
