-- Claims the key of a request that must be done at most once, or returns what an earlier request left there.
--
-- KEYS[1] request  STRING  <fingerprint> <attempt> <result>; without a result the request is in progress, or
--                          its result was lost
-- ARGV[1] claim    <fingerprint> <attempt>: a hash of what is asked for, and an id of this attempt
-- ARGV[2] keep_for (ms)
-- Returns {OK}: the key is the caller's; or {TAKEN, the string that an earlier request left}. Fails if Redis
-- is full; then nothing was written.
-- Uses: common

local request = KEYS[1]
local claim, keep_for = ARGV[1], ARGV[2]

if redis.call('SET', request, claim .. ' ', 'NX', 'PX', keep_for) then return {OK} end
return {TAKEN, redis.call('GET', request)}
