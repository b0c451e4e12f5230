-- Remembers the answer to a claimed request, or gives the claim up.
--
-- KEYS[1] request  STRING  <fingerprint> <claimant> <answer>
-- ARGV[1] claim        <fingerprint> <claimant>
-- ARGV[2] answer       empty: nothing was done, and the request may come again
-- ARGV[3] remember_for (ms)
-- Returns {OK}, or {NOT_YOURS}: the claim is not the caller's any more, or never was; nothing was written.
-- Uses: common

local request = KEYS[1]
local claim, answer, remember_for = ARGV[1], ARGV[2], ARGV[3]

if redis.call('GET', request) ~= claim .. ' ' then return {NOT_YOURS} end
if answer == '' then
  redis.call('DEL', request)
else
  redis.call('SET', request, claim .. ' ' .. answer, 'PX', remember_for)
end
return {OK}
