package presence

import "testing"

func TestKeys_SpreadTheShardsEvenlyOverTheSlotsOfACluster(t *testing.T) {
	for _, shards := range []int{1, 2, 3, 64, 1024} {
		for shard := range shards {
			slot := slotOf(hashTag(shard, shards))
			place := (slot + clusterSlots - slotOf("0")) % clusterSlots // counted from the first shard's
			if place*shards/clusterSlots != shard {
				t.Errorf("shard %d of %d is in slot %d", shard, shards, slot)
			}
		}
		if tag := hashTag(0, shards); tag != "0" {
			t.Errorf("of %d shards the first has the tag %s", shards, tag)
		}
	}
	// The check value of CRC16 XMODEM is in the specification of Redis Cluster.
	if got := slotOf("123456789"); got != 0x31C3 {
		t.Errorf("the slot of 123456789 is %#x", got)
	}
}
