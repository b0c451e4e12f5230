-- Claims a request that must be done at most once, or tells what became of it when it came first.
--
-- KEYS[1] request  STRING  <fingerprint> <answer>; no answer yet: it is under way, or its instance died of it
-- ARGV[1] fingerprint  of what is asked for
-- ARGV[2] remember_for (ms)
-- Returns {OK}: it is the caller's; or {STALE, fingerprint and answer} of the first.

local request = KEYS[1]
local fingerprint, remember_for = ARGV[1], ARGV[2]

if redis.call('SET', request, fingerprint .. ' ', 'NX', 'PX', remember_for) then return {OK} end
return {STALE, redis.call('GET', request)}
