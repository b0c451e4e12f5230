-- What every script here knows about entries. Not a script itself: lua.go puts it in front of each, after standing.lua.
--
-- An entry (a value of the owners hash):  <since, ms> <token>:<sockets> <token>:<sockets> …

local OFFLINE, RECONNECTING, ONLINE = 0, 1, 2 -- states of a user

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

-- Records that a user went with the last token that vouched for a socket; all tokens of the entry are dead. leases: token → lease.
local function record_death(log, cap, seen, user, entry, leases, now)
  local seen_at = 0
  for token, sockets in entry:gmatch(' ([^:]+):(%d+)') do
    if sockets ~= '0' then seen_at = math.max(seen_at, tonumber(leases[token]:match('^%d+'))) end
  end
  if seen_at > 0 then redis.call('ZADD', seen, seen_at, user) end
  record_change(log, cap, user, 'offline', now)
end
