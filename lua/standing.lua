-- What every script here knows about leases. Not a script itself: lua.go puts it in front of each.
--
-- A lease (a value of the leases hash):  <deadline, ms> <version>               believed until the deadline
--                                        <deadline, ms> <version> <until, ms>   pardoned: past the deadline, dead only from then on
--                                        <deadline, ms> <version> dead          condemned: can never be renewed again
-- A token is <instance>.<epoch>.

local OK, STALE = 1, 0
local DEAD, LAPSED, LIVE = 0, 1, 2 -- standings of a token

local function redis_now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A lease past its deadline is lapsed for `grace` ms and may still be renewed; after that it is dead.
local function lease_standing(lease, now, grace)
  local deadline, mark = lease:match('^(%d+) %d+ ?(.*)$')
  if mark == 'dead' then return DEAD end
  if now < tonumber(deadline) then return LIVE end
  return now < (tonumber(mark) or deadline + grace) and LAPSED or DEAD
end

-- Returns the lease of a token that wants to go on, nil if it has none, and its standing. If no lease at all is live, then nobody could
-- renew: Redis was out of reach, and that a lease ran out says nothing of its owner. So all are pardoned: they have the grace, from
-- now on, to come back as if nothing had been.
local function renewable_lease(leases, token, now, grace)
  local lease = redis.call('HGET', leases, token)
  if lease and lease_standing(lease, now, grace) == LIVE then return lease, LIVE end
  local flat, pardoned = redis.call('HGETALL', leases), {}
  for i = 1, #flat, 2 do
    local other, bare, mark = flat[i], flat[i + 1]:match('^(%d+ %d+) ?(.*)$')
    if lease_standing(flat[i + 1], now, grace) == LIVE then return lease, lease and lease_standing(lease, now, grace) end
    if mark ~= 'dead' then pardoned[other] = string.format('%s %d', bare, now + grace) end
  end
  for other, pardon in pairs(pardoned) do redis.call('HSET', leases, other, pardon) end
  lease = pardoned[token] or lease
  return lease, lease and lease_standing(lease, now, grace)
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
