-- Says who this instance is, for people to read, and agrees with all others on the number of shards. Forgets
-- instances without a lease. Finds the lowest protocol that an instance has in its record; 1 is that of who
-- names none. It works although Redis is full.
--
-- KEYS[1] instances  HASH    instance → JSON
-- KEYS[2] leases     HASH    token → lease, of the same shard
-- KEYS[3] shards     STRING  the number of shards every instance uses
-- ARGV[1] instance
-- ARGV[2] record     JSON
-- ARGV[3] shards     as this instance is set
-- Returns {OK, shards, protocol}, or {OTHER_SHARDS, shards} if others use another number; nothing was
-- written.
-- Uses: common

local instances, leases, agreed = KEYS[1], KEYS[2], KEYS[3]
local instance, record, shards = ARGV[1], ARGV[2], ARGV[3]

local number = redis.call('GET', agreed) or shards
if number ~= shards then return {OTHER_SHARDS, tonumber(number) or 0} end

local function protocol_of(described)
  local ok, read = pcall(cjson.decode, described)
  return ok and type(read) == 'table' and tonumber(read.protocol) or 1
end

write_though_full(instances)
redis.call('SET', agreed, shards)
redis.call('HSET', instances, instance, record)
local leased = {}
for _, token in ipairs(redis.call('HKEYS', leases)) do leased[token:match('^[^.]*')] = true end
local flat, lowest = redis.call('HGETALL', instances), math.huge
for i = 1, #flat, 2 do
  local other, described = flat[i], flat[i + 1]
  if leased[other] or other == instance then
    lowest = math.min(lowest, protocol_of(described))
  else
    redis.call('HDEL', instances, other)
  end
end
return {OK, tonumber(number), lowest}
