-- How leases go on, and how a script begins to write. Not a script itself: lua.go puts it in front of those
-- that need it, after standing.lua.

local CLOCK_SLACK = 1000 -- ms that the clock may step back without anybody minding

-- Moves the times of a lease back.
local function moved_back(lease, ms)
  local deadline, version, dead_from = lease:match('^(%d+) (%d+) (%d+)$')
  local function earlier(time) return string.format('%d', math.max(0, time - ms)) end
  if dead_from then return earlier(deadline) .. ' ' .. version .. ' ' .. earlier(dead_from) end
  return (lease:gsub('^%d+', earlier))
end

-- Returns the lease of a token that wants to go on, nil if it has none, its standing, and token → lease for
-- those that must be written anew before anything else is (see begin_writing). There are two reasons for
-- that. If the clock has stepped back, then all leases last too long by as much, also those of the dead: all
-- are moved back. And if no lease at all is live, then nobody could renew: Redis was out of reach, and that a
-- lease ran out says nothing of its owner. So all are pardoned: they have the grace, from now on, to come
-- back as if nothing had been.
local function renewable_lease(leases, clock, token, now, grace)
  local lease, behind = redis.call('HGET', leases, token), (tonumber(redis.call('GET', clock) or 0) or 0) - now
  if behind <= CLOCK_SLACK then behind = 0 end
  if behind == 0 and lease and lease_standing(lease, now, grace) == LIVE then return lease, LIVE, {} end
  local flat, rewritten, pardoned, alive = redis.call('HGETALL', leases), {}, {}, false
  for i = 1, #flat, 2 do
    local other, text = flat[i], behind > 0 and moved_back(flat[i + 1], behind) or flat[i + 1]
    local stands = lease_standing(text, now, grace)
    if text ~= flat[i + 1] then rewritten[other] = text end
    if other == token then lease = stands and text end
    if stands and not text:match('dead$') then pardoned[other] = string.format('%s %d', text:match('^%d+ %d+'), now + grace) end
    alive = alive or stands == LIVE
  end
  if not alive then
    for other, pardon in pairs(pardoned) do rewritten[other] = pardon end
  end
  lease = lease and rewritten[token] or lease
  return lease, lease and lease_standing(lease, now, grace), rewritten
end

-- Lets a script write although Redis is full. Redis looks at its memory only until a script's first write,
-- which this is: one that can only free some, and so is always allowed. What these scripts write is little,
-- and what they remove makes room.
local function write_though_full(hash) redis.call('HDEL', hash, '') end

-- Writes how late it is, by which a step back is noticed, and the leases that renewable_lease changed. Says
-- whether Redis is full.
local function begin_writing(leases, clock, now, rewritten)
  local full = redis.pcall('SET', clock, string.format('%d', now)).err ~= nil
  if full then
    write_though_full(leases)
    redis.call('SET', clock, string.format('%d', now)) -- if it was not that: fails as before
  end
  for token, lease in pairs(rewritten) do redis.call('HSET', leases, token, lease) end
  return full
end
