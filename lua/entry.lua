-- What every script here knows about entries. Not a script itself: lua.go puts it in front of each, after standing.lua.
--
-- An entry (a value of the owners hash):  <since, ms> <token>:<sockets> <token>:<sockets> …

local OFFLINE, RECONNECTING, ONLINE, UNKNOWN = 0, 1, 2, 3 -- states of a user

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

-- Records until when the dead tokens of an entry vouched for sockets of its user, if nobody has some now. leases: token → lease.
local function record_vouched(seen, user, entry, standing, leases)
  if entry_state(entry, standing) == ONLINE then return end
  local last = 0
  for token, sockets in entry:gmatch(' ([^:]+):(%d+)') do
    if standing[token] == DEAD and sockets ~= '0' then last = math.max(last, tonumber(leases[token]:match('^%d+'))) end
  end
  if last > (tonumber(redis.call('ZSCORE', seen, user)) or 0) then redis.call('ZADD', seen, last, user) end
end
