-- Opens, renews or ends one token's lease, sends the owner's heartbeat through its own channel, and tells every lease there is.
--
-- KEYS[1] leases  HASH  token → lease
-- ARGV[1] token
-- ARGV[2] version    mirror writes under this lease so far, as the caller counts them; empty = there is no lease yet, open it
-- ARGV[3] lifetime   from now (ms); 0 ends the lease, and its users' grace begins
-- ARGV[4] grace      (ms)
-- ARGV[5] publish    PUBLISH, or SPUBLISH on a Cluster
-- ARGV[6] channel    the instance's own, in this shard
-- ARGV[7] heartbeat  the message to send there
-- ARGV[8…] condemned tokens: believed no more, whatever their lease says
-- Returns {OK, now, token, lease, token, lease, …} (now in ms) or {STALE}: not the lease the caller knows; nothing was written.

local leases = KEYS[1]
local token, version, lifetime, grace = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local publish, channel, heartbeat, first_condemned = ARGV[5], ARGV[6], ARGV[7], 8

local now = redis_now()
local lease, standing = renewable_lease(leases, token, now, grace)
if (lease and lease:match(' (%d+)') or '') ~= version or standing == DEAD then return {STALE} end

redis.call('HSET', leases, token, string.format('%d %d', now + lifetime, tonumber(version) or 0))
for i = first_condemned, #ARGV do
  redis.call('HSET', leases, ARGV[i], string.format('%d 0 dead', now))
end
redis.call(publish, channel, heartbeat)

local reply = redis.call('HGETALL', leases)
table.insert(reply, 1, OK)
table.insert(reply, 2, now)
return reply
