-- Opens, renews or ends one token's lease, sends the owner's heartbeat through its own channel, and tells
-- every lease there is. It works although Redis is full, and says so.
--
-- KEYS[1] leases  HASH    token → lease
-- KEYS[2] clock   STRING  when a lease was last written (ms), by Redis' clock
-- ARGV[1] token
-- ARGV[2] version    mirror writes under this lease so far, as the caller counts them; empty = there is no lease yet, open it
-- ARGV[3] lifetime   from now (ms); 0 ends the lease, and its users' grace begins
-- ARGV[4] grace      (ms)
-- ARGV[5] publish    PUBLISH, or SPUBLISH on a Cluster
-- ARGV[6] channel    the instance's own, in this shard
-- ARGV[7] heartbeat  the message to send there
-- ARGV[8…] condemned tokens: believed no more, whatever their lease says
-- Returns {OK, now, full, token, lease, token, lease, …} (now in ms; full: 1 if Redis is, else 0) or
-- {STALE_LEASE}: not the lease the caller knows; nothing was written.

local leases, clock = KEYS[1], KEYS[2]
local token, version, lifetime, grace = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local publish, channel, heartbeat, first_condemned = ARGV[5], ARGV[6], ARGV[7], 8

local now = redis_now()
local lease, standing, rewritten = renewable_lease(leases, clock, token, now, grace)
if (lease and lease:match(' (%d+)') or '') ~= version or standing == DEAD then return {STALE_LEASE} end

local full = begin_writing(leases, clock, now, rewritten)
redis.call('HSET', leases, token, string.format('%d %d', now + lifetime, tonumber(version) or 0))
for i = first_condemned, #ARGV do
  redis.call('HSET', leases, ARGV[i], string.format('%d 0 dead', now))
end
redis.call(publish, channel, heartbeat)

local reply = redis.call('HGETALL', leases)
table.insert(reply, 1, OK)
table.insert(reply, 2, now)
table.insert(reply, 3, full and 1 or 0)
return reply
