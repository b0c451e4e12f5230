-- What every script needs. Not a script itself: lua.go puts this file before the scripts that name it.

-- Statuses, the first value that a script returns if it may refuse. lua.go has the same.
local OK, STALE_LEASE, OTHER_SHARDS, TAKEN, NOT_YOURS = 1, 0, 2, 3, 4

-- Returns the time in ms, by the clock of Redis. No script uses another clock.
local function redis_now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Lets a script write although Redis is full. Redis checks its memory only until the first write of a script.
-- Deleting can only free memory and is therefore always allowed, so this is a deletion of nothing. Scripts
-- that call this write little, and what they remove makes room.
local function write_though_full(hash) redis.call('HDEL', hash, '') end
