-- What every script here knows about entries. Not a script itself: lua.go puts it in front of each, after standing.lua.
--
-- An entry (a value of the owners hash):  <since, ms> <token>:<sockets> <token>:<sockets> …
-- What does not begin in that way is none. Words in it that are no owners are passed over.

local OFFLINE, RECONNECTING, ONLINE, UNKNOWN = 0, 1, 2, 3 -- states of a user
local OWNERS = ' ([^ :]+):(%d+)' -- matches each owner of an entry
local TRIM_MOST = 2000 -- users forgotten by one call: it holds Redis up for less than a millisecond

local function readable(entry) return entry and entry:find('^%d+ ') and entry end

local function entry_state(entry, standing)
  local state = OFFLINE
  for token, sockets in entry:gmatch(OWNERS) do
    if standing[token] == LIVE and tonumber(sockets) > 0 then return ONLINE end
    if standing[token] ~= DEAD then state = RECONNECTING end
  end
  return state
end

-- Returns what other instances have in an entry, and whether a dead token has something in it. What an
-- instance wrote under earlier tokens is superseded, and what dead tokens wrote is void. graces_over: so are
-- graces.
local function other_owners(entry, standing, mine, graces_over)
  local others, dead = '', false
  for owner, n in entry:gmatch(OWNERS) do
    dead = dead or standing[owner] == DEAD
    local void = owner:sub(1, #mine) == mine or standing[owner] == DEAD or n == '0' and graces_over
    if not void then others = others .. ' ' .. owner .. ':' .. n end
  end
  return others, dead
end

local function record_change(log, cap, user, state, at)
  redis.call('XADD', log, 'MAXLEN', '~', cap, '*', 'user', user, 'state', state, 'at', string.format('%d', at))
end

-- Forgets users who were seen too long ago, and the longest unseen ones beyond the cap, but not too many at
-- once.
local function trim_seen(seen, oldest, cap)
  local over = math.max(redis.call('ZCARD', seen) - cap, redis.call('ZCOUNT', seen, '-inf', string.format('%d', oldest)))
  if over > 0 then redis.call('ZREMRANGEBYRANK', seen, 0, math.min(over, TRIM_MOST) - 1) end
end

-- Records until when the dead tokens of an entry vouched for sockets of its user, if nobody has some now. leases: token → lease.
local function record_vouched(seen, user, entry, standing, leases)
  if entry_state(entry, standing) == ONLINE then return end
  local last = 0
  for token, sockets in entry:gmatch(OWNERS) do
    if standing[token] == DEAD and sockets ~= '0' then last = math.max(last, tonumber(leases[token]:match('^%d+'))) end
  end
  if last > (tonumber(redis.call('ZSCORE', seen, user)) or 0) then redis.call('ZADD', seen, last, user) end
end
