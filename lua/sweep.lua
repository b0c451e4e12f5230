-- Takes one step through the owners, dropping what dead tokens left behind, and logs who went offline by it. After the last step
-- of a pass no entry names the tokens that were dead at its first step, so their leases go too.
--
-- KEYS[1] owners  HASH    user → entry
-- KEYS[2] leases  HASH    token → lease
-- KEYS[3] log     STREAM  changes of presence, capped
-- KEYS[4] seen    ZSET    user → when last online (ms), of those who are not
-- ARGV[1] cursor   of HSCAN; 0 begins a pass
-- ARGV[2] count    entries to look at, about
-- ARGV[3] grace    (ms)
-- ARGV[4] log_cap  entries to keep in the log, about
-- ARGV[5…] the tokens that were dead at the first step of this pass; none at the first step
-- Returns {cursor, dropped, token, …}: the next cursor (0 = the pass is over), entries dropped, and the tokens for ARGV[5…]. While no
-- token is live, a pass ends at once, with nothing done.

local owners, leases, log, seen = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local cursor, count, grace, log_cap, first_dead = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], 5

local now = redis_now()
local known, standing, dead, alive = {}, {}, {}, false
local flat = redis.call('HGETALL', leases)
for i = 1, #flat, 2 do
  local token, lease = flat[i], flat[i + 1]
  known[token], standing[token] = lease, lease_standing(lease, now, grace)
  alive = alive or standing[token] == LIVE
end
if not alive then return {'0', 0} end -- not even the caller: Redis was out of reach, and who is dead remains to be seen

for token, lease in pairs(known) do
  if standing[token] == DEAD then
    -- condemned before the first entry goes: a lease with entries missing must never be renewed
    redis.call('HSET', leases, token, lease:match('^%d+ %d+') .. ' dead')
    if cursor == '0' then dead[#dead + 1] = token end
  end
end
for i = first_dead, #ARGV do dead[#dead + 1] = ARGV[i] end

local step = redis.call('HSCAN', owners, cursor, 'COUNT', count)
local dropped, entries = 0, step[2]
for i = 1, #entries, 2 do
  local user, entry, kept, drops = entries[i], entries[i + 1], '', 0
  for token, n in entry:gmatch(' ([^:]+):(%d+)') do
    if not known[token] then -- its lease was lost: give its instance the grace to say so
      known[token], standing[token] = string.format('%d 0', now), LAPSED
      redis.call('HSET', leases, token, known[token])
    end
    if standing[token] == DEAD then
      drops = drops + 1
    else
      kept = kept .. ' ' .. token .. ':' .. n
    end
  end
  if drops > 0 then
    dropped = dropped + 1
    record_vouched(seen, user, entry, standing, known)
    if kept ~= '' then
      redis.call('HSET', owners, user, entry:match('^%d+') .. kept)
    else
      redis.call('HDEL', owners, user)
      record_change(log, log_cap, user, 'offline', now)
    end
  end
end

if step[1] == '0' and #dead > 0 then redis.call('HDEL', leases, unpack(dead)) end
return {step[1], dropped, unpack(dead)}
