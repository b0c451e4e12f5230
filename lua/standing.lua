-- What every script here knows about leases. Not a script itself: lua.go puts it in front of each.
--
-- A lease (a value of the leases hash):  <deadline, ms> <version>               believed until the deadline
--                                        <deadline, ms> <version> <until, ms>   pardoned: past the deadline, dead only from then on
--                                        <deadline, ms> <version> dead          condemned: can never be renewed again
-- A token is <instance>.<epoch>. What is written in another way counts as no lease at all: see standings.

local OK, STALE_LEASE, OTHER_SHARDS, TAKEN, NOT_YOURS = 1, 0, 2, 3, 4 -- statuses: lua.go has the same
local DEAD, LAPSED, LIVE = 0, 1, 2 -- standings of a token

local function redis_now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A lease past its deadline is lapsed for `grace` ms and may still be renewed; after that it is dead. nil: it
-- can't be read.
local function lease_standing(lease, now, grace)
  local deadline, mark = lease:match('^(%d+) %d+(.*)$')
  local dead_from = mark == '' and deadline + grace or mark and tonumber(mark:match('^ (%d+)$') or '')
  if mark == ' dead' then return DEAD end
  if not dead_from then return nil end
  return now < tonumber(deadline) and LIVE or now < dead_from and LAPSED or DEAD
end

-- Returns token → standing, asking Redis once for each token, and token → lease for those. A token without a lease counts as lapsed:
-- it was lost, not ended, and its instance is about to mirror its users again under a new token.
local function standings(leases, now, grace)
  local found = {}
  return setmetatable({}, {__index = function(known, token)
    found[token] = redis.call('HGET', leases, token)
    known[token] = found[token] and lease_standing(found[token], now, grace) or LAPSED
    return known[token]
  end}), found
end
