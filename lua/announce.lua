-- Writes the record of one instance, for people to read, and agrees with the other instances on the number of
-- shards. Deletes the records of instances that have no lease. It works although Redis is full.
--
-- KEYS[1] instances  HASH    instance → JSON
-- KEYS[2] leases     HASH    incarnation → lease, of the same shard
-- KEYS[3] agreed     STRING  the number of shards that every instance uses
-- ARGV[1] instance
-- ARGV[2] record     JSON
-- ARGV[3] shards     that this instance uses
-- Returns {OK, agreed}, or {OTHER_SHARDS, agreed} if the others use another number; then nothing was written.
-- Uses: common

local instances, leases, agreed = KEYS[1], KEYS[2], KEYS[3]
local instance, record, shards = ARGV[1], ARGV[2], ARGV[3]

local number = redis.call('GET', agreed) or shards
if number ~= shards then return {OTHER_SHARDS, tonumber(number) or 0} end

write_though_full(instances)
redis.call('SET', agreed, shards)
redis.call('HSET', instances, instance, record)
local has_lease = {[instance] = true} -- or is about to open one
for _, incarnation in ipairs(redis.call('HKEYS', leases)) do has_lease[incarnation:match('^[^.]*')] = true end
for _, other in ipairs(redis.call('HKEYS', instances)) do
  if not has_lease[other] then redis.call('HDEL', instances, other) end
end
return {OK, tonumber(number)}
