-- How a lease is written, and what its status is. Not a script itself: lua.go puts this file before the
-- scripts that name it.
--
-- The leases hash maps an incarnation, <instance>.<epoch>, to its lease. Times are in ms, by Redis' clock.
--   <deadline> <version>          live until the deadline, then expired for the grace period, then dead
--   <deadline> <version> <until>  extended: past the deadline it is expired until <until>, then dead
--   <deadline> <version> dead     fenced: dead whatever the deadline is, and can never be renewed
-- The version counts the writes of mirror.lua under the lease.
--
-- Why leases are extended: if no lease is live, Redis was unreachable for everybody, so an expired lease says
-- nothing about its owner. All deadlines are extended by one grace period, so that every instance can come
-- back and renew (renewal.lua does it).
--
-- A value of any other form counts as no lease. An incarnation without a lease is expired, not dead: its
-- lease was lost, not ended, and its instance is about to mirror its users again under a new epoch.

local DEAD, EXPIRED, LIVE = 0, 1, 2 -- statuses of a lease; leases.go has the same

-- Returns the status of a lease; nil if the lease is not readable.
local function lease_status(lease, now, grace)
  local deadline, suffix = lease:match('^(%d+) %d+(.*)$')
  if suffix == ' dead' then return DEAD end
  local dead_from = suffix == '' and deadline + grace or suffix and tonumber(suffix:match('^ (%d+)$') or '')
  if not dead_from then return nil end
  return now < tonumber(deadline) and LIVE or now < dead_from and EXPIRED or DEAD
end

-- Returns two tables, incarnation → status and incarnation → lease. The first asks Redis when it is first
-- indexed with an incarnation; the second holds the leases of those asked for.
local function lease_statuses(leases, now, grace)
  local lease_of = {}
  local function ask(status_of, incarnation)
    local lease = redis.call('HGET', leases, incarnation)
    lease_of[incarnation] = lease
    status_of[incarnation] = lease and lease_status(lease, now, grace) or EXPIRED
    return status_of[incarnation]
  end
  return setmetatable({}, {__index = ask}), lease_of
end
