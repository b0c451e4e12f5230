package main

import (
	"slices"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
)

func TestPresenceIsExactThroughASentinelFailover(t *testing.T) {
	t.Parallel()
	sentinels := redistest.StartSentinels(t, nil)
	w := startWorld(t, 12, func(w *world) {
		w.at(sentinels.URL(), sentinels.Master.Client())
		w.near = true
		w.flags = []string{"--redis-sentinel-username=" + sentinels.Username, "--redis-sentinel-password=" + sentinels.Password}
	})
	s := w.begin("Sentinel fails over")
	s.failOver(sentinels.Master, sentinels.AwaitHeir)
	w.direct = sentinels.Replica.Client()
	s.settle()
	t.Logf("\n%s", w.report)
}

func TestPresenceIsExactThroughAMovedSlotAndALostMasterOfACluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, true)
	option, err := rueidis.ParseURL(cluster.URL())
	if err != nil {
		t.Fatal(err)
	}
	option.DisableCache = true
	direct, err := rueidis.NewClient(option)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(direct.Close)
	w := startWorld(t, 12, func(w *world) {
		w.at(cluster.URL(), direct)
		w.near = true
	})
	owners := w.prefix + "{0}:owners"
	s := w.begin("slot of a Cluster moved")
	s.away = true // while the slot is in two places, scripts are refused
	cluster.MoveSlot(owners)
	s.over = time.Now()
	s.settle()

	s = w.begin("master of a Cluster killed")
	lost := slices.IndexFunc(cluster.Masters, func(master *redistest.Server) bool { return master.Ask("HLEN", owners).Error() == nil })
	s.failOver(cluster.Masters[lost], func() { cluster.AwaitHeir(lost) })
	s.settle()
	t.Logf("\n%s", w.report)
}

// failOver kills a master and waits until there is another. What Redis had taken last may be lost.
func (s *step) failOver(master *redistest.Server, awaitHeir func()) {
	s.lossy, s.away, s.discard = true, true, true
	master.Kill()
	awaitHeir()
	s.over = time.Now()
}
