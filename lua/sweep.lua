-- Takes one step through the owners, removes what dead incarnations left there, and logs the users who went
-- offline by that. After the last step of a pass, no entry names an incarnation that was dead at the first
-- step, so their leases are deleted too. Entries and leases that are not readable are deleted: such an entry
-- shows nobody online, and such a lease is as good as lost. It works although Redis is full.
--
-- KEYS[1] owners  HASH    user → entry
-- KEYS[2] leases  HASH    incarnation → lease
-- KEYS[3] log     STREAM  changes of presence, capped
-- KEYS[4] seen    ZSET    offline or reconnecting user → when last online (ms)
-- ARGV[1] cursor    of HSCAN; 0 begins a pass
-- ARGV[2] count     entries to look at, about
-- ARGV[3] grace     (ms)
-- ARGV[4] log_cap   entries to keep in the log, about
-- ARGV[5] seen_for  how long an offline user is remembered (ms)
-- ARGV[6] seen_cap  offline users to remember, about
-- ARGV[7…] dead     the incarnations that were dead at the first step of this pass; none at the first step
-- Returns {cursor, dropped, incarnation, …}: the next cursor (0: the pass is over), the number of entries
-- from which something was removed, and the incarnations for ARGV[7…]. While no lease is live, a pass ends at
-- once and changes nothing: Redis was unreachable, and it is not known yet who is dead.
-- Uses: common, leases, entry

local owners, leases, log, seen = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local cursor, count, grace, log_cap = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local seen_for, seen_cap, first_dead = tonumber(ARGV[5]), tonumber(ARGV[6]), 7

local now = redis_now()
local lease_of, status_of, fenced, unreadable, dead, any_live = {}, {}, {}, {}, {}, false
local flat = redis.call('HGETALL', leases)
for i = 1, #flat, 2 do
  local incarnation, lease = flat[i], flat[i + 1]
  local status = lease_status(lease, now, grace)
  lease_of[incarnation], status_of[incarnation] = status and lease, status
  any_live = any_live or status == LIVE
  if not status then unreadable[#unreadable + 1] = incarnation end
  if status == DEAD and cursor == '0' then dead[#dead + 1] = incarnation end
  if status == DEAD and not lease:match('dead$') then
    fenced[incarnation] = lease:match('^%d+ %d+') .. ' dead'
  end
end
if not any_live then return {'0', 0} end

write_though_full(owners)
for _, incarnation in ipairs(unreadable) do redis.call('HDEL', leases, incarnation) end
-- fenced before the first entry is removed: a lease with entries missing must never be renewed
for incarnation, lease in pairs(fenced) do redis.call('HSET', leases, incarnation, lease) end
for i = first_dead, #ARGV do dead[#dead + 1] = ARGV[i] end
trim_seen(seen, now - seen_for, seen_cap)

local step = redis.call('HSCAN', owners, cursor, 'COUNT', count)
local reply, dropped, entries = {step[1], 0}, 0, step[2]
for i = 1, #entries, 2 do
  local user, entry, remaining, drops = entries[i], readable(entries[i + 1]), '', 0
  for owner, sockets in (entry or ''):gmatch(OWNERS) do
    if not lease_of[owner] then -- its lease was lost: its instance has the grace to mirror the user again
      lease_of[owner], status_of[owner] = string.format('%d 0', now), EXPIRED
      redis.call('HSET', leases, owner, lease_of[owner])
    end
    if status_of[owner] == DEAD then
      drops = drops + 1
    else
      remaining = remaining .. ' ' .. owner .. ':' .. sockets
    end
  end
  if drops > 0 or not entry then dropped = dropped + 1 end
  if drops > 0 then record_last_seen(seen, user, entry, status_of, lease_of) end
  if drops > 0 and remaining ~= '' then redis.call('HSET', owners, user, entry:match('^%d+') .. remaining) end
  if remaining == '' then redis.call('HDEL', owners, user) end
  if drops > 0 and remaining == '' then record_change(log, log_cap, user, 'offline', now) end
end

reply[2] = dropped
for _, incarnation in ipairs(dead) do -- one by one: there may be more than one call can take
  if step[1] == '0' then redis.call('HDEL', leases, incarnation) end
  reply[#reply + 1] = incarnation
end
return reply
