-- Stores the result of a claimed request, or frees its key.
--
-- KEYS[1] request  STRING  <fingerprint> <attempt> <result>
-- ARGV[1] claim    <fingerprint> <attempt>
-- ARGV[2] result   empty: nothing was done, and the key is free again
-- ARGV[3] keep_for (ms)
-- Returns {OK}; or {NOT_YOURS}: the caller has no claim there without a result. Then nothing was written.
-- Uses: common

local request = KEYS[1]
local claim, result, keep_for = ARGV[1], ARGV[2], ARGV[3]

if redis.call('GET', request) ~= claim .. ' ' then return {NOT_YOURS} end
if result == '' then
  redis.call('DEL', request)
else
  redis.call('SET', request, claim .. ' ' .. result, 'PX', keep_for)
end
return {OK}
