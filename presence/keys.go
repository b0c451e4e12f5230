package presence

import (
	"hash/fnv"
	"strconv"
)

// clusterSlots is the number of hash slots of every Redis Cluster.
const clusterSlots = 16384

// Keys names every key and channel. It is the only place where names are made.
//
//	<prefix>{tag}:owners         HASH    user → entry; an entry lives while an incarnation in it is not dead
//	<prefix>{tag}:leases         HASH    incarnation → lease; until swept
//	<prefix>{tag}:log            STREAM  changes of presence; capped
//	<prefix>{tag}:seen           ZSET    user → when last online, ms, if not now; trimmed by age and number
//	<prefix>{tag}:clock          STRING  when a lease was last written, ms, by Redis' clock: shows if it
//	                                     steps back; for ever
//	<prefix>{tag}:to:<instance>  channel what this instance's sockets must get
//	<prefix>{tag}:once:<hash>    STRING  the result of a request with an idempotency key; for some minutes
//	<prefix>{0}:instances        HASH    instance → JSON for people; while it has a lease in shard 0
//	<prefix>{0}:shards           STRING  the number of shards that all instances agree on; for ever
//	<prefix>{0}:all              channel emits to every socket
//	<prefix>{0}:authenticated    channel emits to every socket that has a user
type Keys struct {
	tags []string // of each shard, with the prefix in front
}

// NewKeys names the keys of so many shards (at least 1, at most 16384).
func NewKeys(prefix string, shards int) Keys {
	tags := make([]string, shards)
	for shard := range tags {
		tags[shard] = prefix + "{" + hashTag(shard, shards) + "}:"
	}
	return Keys{tags: tags}
}

// Shards is how many shards there are.
func (k Keys) Shards() int { return len(k.tags) }

// ShardOf is the shard that holds a user. Every instance of every version must agree on it.
func (k Keys) ShardOf(user string) int {
	if len(k.tags) == 1 {
		return 0
	}
	hash := fnv.New32a()
	hash.Write([]byte(user))
	return int(hash.Sum32() % uint32(len(k.tags)))
}

func (k Keys) Owners(shard int) string { return k.tags[shard] + "owners" }
func (k Keys) Leases(shard int) string { return k.tags[shard] + "leases" }
func (k Keys) Log(shard int) string    { return k.tags[shard] + "log" }
func (k Keys) Seen(shard int) string   { return k.tags[shard] + "seen" }
func (k Keys) Clock(shard int) string  { return k.tags[shard] + "clock" }

// Channels is what the names of all instances' channels in a shard begin with; the instance's id follows.
func (k Keys) Channels(shard int) string { return k.tags[shard] + "to:" }

// Once takes the hash of an idempotency key.
func (k Keys) Once(hash string) string { return k.tags[k.ShardOf(hash)] + "once:" + hash }

func (k Keys) Instances() string     { return k.tags[0] + "instances" }
func (k Keys) AgreedShards() string  { return k.tags[0] + "shards" }
func (k Keys) All() string           { return k.tags[0] + "all" }
func (k Keys) Authenticated() string { return k.tags[0] + "authenticated" }

// hashTag finds the tag of a shard: the smallest number whose slot lies in the shard's own stretch of the
// slots. Shards are then spread over a Cluster's nodes as evenly as its slots are. The first stretch begins
// with the slot of 0, so the tag of shard 0 is 0 however many shards there are: there, instances find out
// that they disagree on the number.
func hashTag(shard, shards int) string {
	low, high := shard*clusterSlots/shards, (shard+1)*clusterSlots/shards
	for n := 0; ; n++ {
		tag := strconv.Itoa(n)
		if place := (slotOf(tag) - slotOf("0") + clusterSlots) % clusterSlots; low <= place && place < high {
			return tag
		}
	}
}

// slotOf is the Redis Cluster slot of a hash tag: CRC16 (XMODEM) of it, modulo the number of slots.
func slotOf(tag string) int {
	var crc uint16
	for i := range len(tag) {
		crc ^= uint16(tag[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc) % clusterSlots
}
