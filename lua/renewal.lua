-- How a lease goes on, and how a script under a lease begins to write. Not a script itself: lua.go puts this
-- file before the scripts that name it, after leases.lua.

local CLOCK_SLACK = 1000 -- ms by which the clock may step back without consequences

-- Returns a lease with its times moved back.
local function moved_back(lease, ms)
  local function earlier(time) return string.format('%d', math.max(0, time - ms)) end
  local deadline, version, dead_from = lease:match('^(%d+) (%d+) (%d+)$')
  if dead_from then return earlier(deadline) .. ' ' .. version .. ' ' .. earlier(dead_from) end
  return (lease:gsub('^%d+', earlier))
end

-- Returns the lease of an incarnation that is about to renew it (nil: it has none) and the status of that
-- lease. The third result maps incarnations to leases that begin_writing must rewrite first, for one of two
-- reasons:
--   The clock stepped back. All leases, dead ones too, would last that much too long: all are moved back.
--   No lease is live. Then all that are not fenced are extended: leases.lua says why.
local function renewable_lease(leases, clock, incarnation, now, grace)
  local lease = redis.call('HGET', leases, incarnation)
  local behind = (tonumber(redis.call('GET', clock) or 0) or 0) - now
  if behind <= CLOCK_SLACK then behind = 0 end
  if behind == 0 and lease and lease_status(lease, now, grace) == LIVE then return lease, LIVE, {} end

  local flat, rewritten, extended, any_live = redis.call('HGETALL', leases), {}, {}, false
  for i = 1, #flat, 2 do
    local other, text = flat[i], behind > 0 and moved_back(flat[i + 1], behind) or flat[i + 1]
    local status = lease_status(text, now, grace)
    if text ~= flat[i + 1] then rewritten[other] = text end
    if other == incarnation then lease = status and text end
    if status and not text:match('dead$') then
      extended[other] = string.format('%s %d', text:match('^%d+ %d+'), now + grace)
    end
    any_live = any_live or status == LIVE
  end
  if not any_live then
    for other, text in pairs(extended) do rewritten[other] = text end
  end
  lease = lease and rewritten[incarnation] or lease
  return lease, lease and lease_status(lease, now, grace), rewritten
end

-- Records the time, so that the next call notices a step back of the clock, and writes the leases that
-- renewable_lease changed. Returns whether Redis is full.
local function begin_writing(leases, clock, now, rewritten)
  local full = redis.pcall('SET', clock, string.format('%d', now)).err ~= nil
  if full then
    write_though_full(leases)
    redis.call('SET', clock, string.format('%d', now)) -- fails again if Redis refused for another reason
  end
  for incarnation, lease in pairs(rewritten) do redis.call('HSET', leases, incarnation, lease) end
  return full
end
