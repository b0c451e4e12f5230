-- What every script here knows about leases and entries. Not a script itself: lua.go puts it in front of each.
--
-- An entry (a value of the owners hash):  <since, ms> <token>:<sockets> <token>:<sockets> …
-- A lease (a value of the leases hash):   <deadline, ms> <version>         believed until the deadline
--                                         <deadline, ms> <version> dead    condemned: can never be renewed again
-- A token is <instance>.<epoch>.

local OK, STALE = 1, 0
local OFFLINE, RECONNECTING, ONLINE = 0, 1, 2 -- states of a user
local DEAD, LAPSED, LIVE = 0, 1, 2            -- standings of a token

local function redis_now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A lease past its deadline is lapsed for `grace` ms and may still be renewed; after that it is dead.
local function lease_standing(lease, now, grace)
  local deadline, mark = lease:match('^(%d+) %d+(.*)$')
  deadline = tonumber(deadline)
  if mark ~= '' or now >= deadline + grace then return DEAD end
  if now >= deadline then return LAPSED end
  return LIVE
end

-- Returns token → standing, asking Redis once for each token. A token without a lease counts as lapsed: it was lost, not ended,
-- and its instance is about to mirror its users again under a new token.
local function standings(leases, now, grace)
  return setmetatable({}, {__index = function(known, token)
    local lease = redis.call('HGET', leases, token)
    known[token] = lease and lease_standing(lease, now, grace) or LAPSED
    return known[token]
  end})
end

local function entry_state(entry, standing)
  local state = OFFLINE
  for token, sockets in entry:gmatch(' ([^:]+):(%d+)') do
    if standing[token] == LIVE and sockets ~= '0' then return ONLINE end
    if standing[token] ~= DEAD then state = RECONNECTING end
  end
  return state
end

local function record_change(log, cap, user, state, at)
  redis.call('XADD', log, 'MAXLEN', '~', cap, '*', 'user', user, 'state', state, 'at', string.format('%d', at))
end
