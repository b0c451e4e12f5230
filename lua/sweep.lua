-- Takes one step through the owners, dropping what dead tokens left behind, and logs who went offline by it.
-- After the last step of a pass no entry names the tokens that were dead at its first step, so their leases
-- go too. What can't be read goes as well: nobody vouches for such an entry, and whose lease it was has lost
-- it. It works although Redis is full.
--
-- KEYS[1] owners  HASH    user → entry
-- KEYS[2] leases  HASH    token → lease
-- KEYS[3] log     STREAM  changes of presence, capped
-- KEYS[4] seen    ZSET    user → when last online (ms), of those who are not
-- ARGV[1] cursor    of HSCAN; 0 begins a pass
-- ARGV[2] count     entries to look at, about
-- ARGV[3] grace     (ms)
-- ARGV[4] log_cap   entries to keep in the log, about
-- ARGV[5] seen_for  how long an offline user is remembered (ms)
-- ARGV[6] seen_cap  offline users to remember, about
-- ARGV[7…] the tokens that were dead at the first step of this pass; none at the first step
-- Returns {cursor, dropped, token, …}: the next cursor (0 = the pass is over), entries dropped, and the
-- tokens for ARGV[7…]. While no token is live, a pass ends at once, with nothing done.

local owners, leases, log, seen = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local cursor, count, grace, log_cap = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local seen_for, seen_cap, first_dead = tonumber(ARGV[5]), tonumber(ARGV[6]), 7

local now = redis_now()
local known, standing, condemned, unreadable, dead, alive = {}, {}, {}, {}, {}, false
local flat = redis.call('HGETALL', leases)
for i = 1, #flat, 2 do
  local token, lease = flat[i], flat[i + 1]
  local stands = lease_standing(lease, now, grace)
  known[token], standing[token] = stands and lease, stands
  alive = alive or stands == LIVE
  if not stands then unreadable[#unreadable + 1] = token end
  if stands == DEAD and cursor == '0' then dead[#dead + 1] = token end
  if stands == DEAD and not lease:match('dead$') then condemned[token] = lease:match('^%d+ %d+') .. ' dead' end
end
if not alive then return {'0', 0} end -- not even the caller: Redis was out of reach, and who is dead remains to be seen

write_though_full(owners)
for _, token in ipairs(unreadable) do redis.call('HDEL', leases, token) end
-- condemned before the first entry goes: a lease with entries missing must never be renewed
for token, lease in pairs(condemned) do redis.call('HSET', leases, token, lease) end
for i = first_dead, #ARGV do dead[#dead + 1] = ARGV[i] end
trim_seen(seen, now - seen_for, seen_cap)

local step = redis.call('HSCAN', owners, cursor, 'COUNT', count)
local reply, dropped, entries = {step[1], 0}, 0, step[2]
for i = 1, #entries, 2 do
  local user, entry, kept, drops = entries[i], readable(entries[i + 1]), '', 0
  for token, n in (entry or ''):gmatch(OWNERS) do
    if not known[token] then -- its lease was lost: give its instance the grace to say so
      known[token], standing[token] = string.format('%d 0', now), LAPSED
      redis.call('HSET', leases, token, known[token])
    end
    if standing[token] == DEAD then drops = drops + 1 else kept = kept .. ' ' .. token .. ':' .. n end
  end
  if drops > 0 or not entry then dropped = dropped + 1 end
  if drops > 0 then record_vouched(seen, user, entry, standing, known) end
  if drops > 0 and kept ~= '' then redis.call('HSET', owners, user, entry:match('^%d+') .. kept) end
  if kept == '' then redis.call('HDEL', owners, user) end
  if drops > 0 and kept == '' then record_change(log, log_cap, user, 'offline', now) end
end

reply[2] = dropped
for _, token in ipairs(dead) do -- one by one, for there may be more than one call can take
  if step[1] == '0' then redis.call('HDEL', leases, token) end
  reply[#reply + 1] = token
end
return reply
