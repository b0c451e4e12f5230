-- Writes what one incarnation of an instance has of many users, logs who came and who went, and renews the
-- incarnation's lease. It works although Redis is full.
--
-- KEYS[1] owners  HASH    user → entry
-- KEYS[2] leases  HASH    incarnation → lease
-- KEYS[3] log     STREAM  changes of presence, capped
-- KEYS[4] seen    ZSET    user → when last online (ms), of those who are not
-- KEYS[5] clock   STRING  when a lease was last written (ms), by Redis' clock
-- ARGV[1] incarnation      for example 7f3a9c1e.3
-- ARGV[2] version          mirror writes under this lease so far, as the caller counts them
-- ARGV[3] lifetime         of the renewed lease (ms)
-- ARGV[4] grace            (ms)
-- ARGV[5] log_cap          entries to keep in the log, about
-- ARGV[6] seen_for         how long an offline user is remembered (ms)
-- ARGV[7] seen_cap         offline users to remember, about
-- ARGV[8] mirrored_before  so many users, the first ones, were mirrored by this instance before
-- ARGV[9…] user, what, ago, user, what, ago, …   for example: alice 2 90000 bob left 0
--          what: how many sockets the user has here (above 0), or one of five words for a user who has none:
--            grace             came and dropped since the last write: is in a grace here, and this is news
--            grace-if-present  dropped, as in a tunnel: is in a grace here, unless Redis says that the user
--                              is offline. A grace makes nobody reconnecting who was offline
--            gone              the grace here is over. Graces and sockets on other instances stay
--            left              closed the last tab. Graces on other instances end too, sockets there stay
--            left-early        closed the last tab before the shortest stay was over: as grace-if-present
--                              here, and as left on other instances
--          ago (ms): since the user came, with sockets; else since the last socket went
-- Returns {OK, version} or {STALE_LEASE}: no such lease, a dead one, or another version; nothing was written.
-- Uses: common, leases, renewal, entry

local owners, leases, log, seen, clock = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local incarnation, version, lifetime, grace = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local log_cap, seen_for, seen_cap = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local mirrored_before, first = tonumber(ARGV[8]), 9

local now = redis_now()
local lease, status, rewritten = renewable_lease(leases, clock, incarnation, now, grace)
if not lease or lease:match(' (%d+)') ~= version or status == DEAD then return {STALE_LEASE} end

begin_writing(leases, clock, now, rewritten)
local next_version = string.format('%d', version + 1)
redis.call('HSET', leases, incarnation, string.format('%d %s', now + lifetime, next_version))

local status_of, lease_of = lease_statuses(leases, now, grace)
local mine = incarnation:match('^[^.]+%.')

local users = {}
for i = first, #ARGV, 3 do users[#users + 1] = ARGV[i] end
local entries = #users > 0 and redis.call('HMGET', owners, unpack(users))
local written, removed, came, went = {}, {}, {}, {} -- for the end: each call costs more than what it does

for place, user in ipairs(users) do
  local i = first + 3 * (place - 1)
  local what, at, entry = ARGV[i + 1], now - ARGV[i + 2], readable(entries[place])
  local sockets, left = tonumber(what) or 0, what == 'left' or what == 'left-early'
  local before, since, others = OFFLINE, sockets > 0 and at or now, ''
  if entry then
    local dead
    before = entry_state(entry, status_of)
    if before ~= OFFLINE then since = math.min(tonumber(entry:match('^%d+')), since) end
    others, dead = other_owners(entry, status_of, mine, left)
    if dead then record_last_seen(seen, user, entry, status_of, lease_of) end
    if before == OFFLINE then record_change(log, log_cap, user, 'offline', now) end -- not swept yet
  elseif place <= mirrored_before and not redis.call('ZSCORE', seen, user) then
    before = ONLINE -- Redis lost the entry: coming was logged before, and going was not
  end

  local if_present = what == 'grace-if-present' or what == 'left-early'
  local own = sockets > 0 or what == 'grace' or if_present and before ~= OFFLINE
  local owners_after = own and others .. ' ' .. incarnation .. ':' .. sockets or others
  local after = entry_state(owners_after, status_of)
  if owners_after ~= '' then
    written[#written + 1], written[#written + 2] = user, string.format('%d', since) .. owners_after
  elseif entries[place] then
    removed[#removed + 1] = user
  end
  if before == OFFLINE and after ~= OFFLINE then record_change(log, log_cap, user, 'online', now) end
  if before ~= OFFLINE and after == OFFLINE then record_change(log, log_cap, user, 'offline', now) end
  if before ~= ONLINE and after == ONLINE then came[#came + 1] = user end
  local dropped = before == OFFLINE and after == RECONNECTING -- came and went since the last write
  if before == ONLINE and after ~= ONLINE or dropped then went[#went + 1], went[#went + 2] = at, user end
end

if #went > 0 then trim_seen(seen, now - seen_for, seen_cap) end
if #removed > 0 then redis.call('HDEL', owners, unpack(removed)) end
if #came > 0 then redis.call('ZREM', seen, unpack(came)) end
if #written > 0 then redis.call('HSET', owners, unpack(written)) end
if #went > 0 then redis.call('ZADD', seen, unpack(went)) end
return {OK, tonumber(next_version)}
