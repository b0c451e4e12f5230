-- How an entry is read, and what is recorded about its user. Not a script itself: lua.go puts this file
-- before the scripts that name it, after leases.lua.
--
-- An entry is a value of the owners hash:  <since> <incarnation>:<sockets> <incarnation>:<sockets> …
-- since is when the user came (ms). sockets is 0 while the user is in the grace there. A value that does not
-- begin with a number and a space counts as no entry. Other words that are not owners are ignored.

local OFFLINE, RECONNECTING, ONLINE, UNKNOWN = 0, 1, 2, 3 -- states of a user; state.go has the same
local OWNERS = ' ([^ :]+):(%d+)' -- matches each owner of an entry
local TRIM_MOST = 2000 -- users that one call forgets: it holds Redis up for less than a millisecond

local function readable(entry) return entry and entry:find('^%d+ ') and entry end

-- Returns the state of the user whose entry this is. status_of: incarnation → status of its lease.
local function entry_state(entry, status_of)
  local state = OFFLINE
  for owner, sockets in entry:gmatch(OWNERS) do
    if status_of[owner] == LIVE and tonumber(sockets) > 0 then return ONLINE end
    if status_of[owner] ~= DEAD then state = RECONNECTING end
  end
  return state
end

-- Returns the owners in an entry that still count, other than the instance that is writing (mine: its id and
-- a dot), and whether the entry names a dead incarnation. graces_over: graces on other instances do not
-- count.
local function other_owners(entry, status_of, mine, graces_over)
  local others, dead = '', false
  for owner, sockets in entry:gmatch(OWNERS) do
    dead = dead or status_of[owner] == DEAD
    local void = owner:sub(1, #mine) == mine or status_of[owner] == DEAD or sockets == '0' and graces_over
    if not void then others = others .. ' ' .. owner .. ':' .. sockets end
  end
  return others, dead
end

-- Appends a change of presence to the log.
local function record_change(log, cap, user, state, at)
  at = string.format('%d', at)
  redis.call('XADD', log, 'MAXLEN', '~', cap, '*', 'user', user, 'state', state, 'at', at)
end

-- Forgets users who were last seen before a time (ms), and those beyond the cap, the longest unseen first.
local function trim_seen(seen, oldest, cap)
  local too_old = redis.call('ZCOUNT', seen, '-inf', string.format('%d', oldest))
  local over = math.max(redis.call('ZCARD', seen) - cap, too_old)
  if over > 0 then redis.call('ZREMRANGEBYRANK', seen, 0, math.min(over, TRIM_MOST) - 1) end
end

-- Records when a user was last seen by the dead incarnations in an entry: until their leases' deadlines. Does
-- nothing if the user is online. lease_of: incarnation → lease.
local function record_last_seen(seen, user, entry, status_of, lease_of)
  if entry_state(entry, status_of) == ONLINE then return end
  local last = 0
  for owner, sockets in entry:gmatch(OWNERS) do
    if status_of[owner] == DEAD and sockets ~= '0' then
      last = math.max(last, tonumber(lease_of[owner]:match('^%d+')))
    end
  end
  if last > (tonumber(redis.call('ZSCORE', seen, user)) or 0) then redis.call('ZADD', seen, last, user) end
end
