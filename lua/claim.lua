-- Claims a request that must be done at most once, or tells what became of it when it came first.
--
-- KEYS[1] request  STRING  <fingerprint> <claimant> <answer>; no answer yet: it is under way, or its instance died of it
-- ARGV[1] claim        <fingerprint> <claimant>: what is asked for, and an id of this attempt
-- ARGV[2] remember_for (ms)
-- Returns {OK}: it is the caller's; or {TAKEN, fingerprint, claimant and answer} of the first. Fails if Redis
-- is full, and nothing was written.
-- Uses: common

local request = KEYS[1]
local claim, remember_for = ARGV[1], ARGV[2]

if redis.call('SET', request, claim .. ' ', 'NX', 'PX', remember_for) then return {OK} end
return {TAKEN, redis.call('GET', request)}
