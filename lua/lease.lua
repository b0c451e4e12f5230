-- Opens, renews or ends the lease of one incarnation, sends a heartbeat through its instance's own channel,
-- and returns all leases. It works although Redis is full, and says so.
--
-- KEYS[1] leases  HASH    incarnation → lease
-- KEYS[2] clock   STRING  when a lease was last written (ms), by Redis' clock
-- ARGV[1] incarnation
-- ARGV[2] version    writes of mirror.lua under this lease, as the caller counts them; empty: open a new one
-- ARGV[3] lifetime   from now (ms); 0 ends the lease, and the grace of its users begins
-- ARGV[4] grace      (ms)
-- ARGV[5] publish    PUBLISH, or SPUBLISH on a Cluster
-- ARGV[6] channel    the instance's own, in this shard
-- ARGV[7] heartbeat  the message to send there
-- ARGV[8…] fenced    earlier incarnations of the instance: dead from now on, whatever their leases say
-- Returns {OK, now, full, incarnation, lease, incarnation, lease, …} (now in ms; full: 1 if Redis is, else 0)
-- or {STALE_LEASE}: Redis holds another version of the lease, or a dead one, or none; nothing was written.
-- Uses: common, leases, renewal

local leases, clock = KEYS[1], KEYS[2]
local incarnation, version, lifetime, grace = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local publish, channel, heartbeat, first_fenced = ARGV[5], ARGV[6], ARGV[7], 8

local now = redis_now()
local lease, status, rewritten = renewable_lease(leases, clock, incarnation, now, grace)
if (lease and lease:match(' (%d+)') or '') ~= version or status == DEAD then return {STALE_LEASE} end

local full = begin_writing(leases, clock, now, rewritten)
local renewed = string.format('%d %d', now + lifetime, tonumber(version) or 0)
redis.call('HSET', leases, incarnation, renewed)
for i = first_fenced, #ARGV do
  redis.call('HSET', leases, ARGV[i], string.format('%d 0 dead', now))
end
redis.call(publish, channel, heartbeat)

local reply = redis.call('HGETALL', leases)
table.insert(reply, 1, OK)
table.insert(reply, 2, now)
table.insert(reply, 3, full and 1 or 0)
return reply
