// River on an empty database: URL COUNT WORKERS; jobs that do nothing; prints {"seconds": …}. A release for Go 1.23, which is what
// Debian 12 has in its backports.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

type args struct {
	N int `json:"n"`
}

func (args) Kind() string { return "nothing" }

type worker struct {
	river.WorkerDefaults[args]
	left *atomic.Int64
	done chan struct{}
}

func (w *worker) Work(context.Context, *river.Job[args]) error {
	if w.left.Add(-1) == 0 {
		close(w.done)
	}
	return nil
}

func main() {
	ctx := context.Background()
	count, err := strconv.Atoi(os.Args[2])
	check(err)
	concurrency, err := strconv.Atoi(os.Args[3])
	check(err)
	config, err := pgxpool.ParseConfig(os.Args[1])
	check(err)
	config.MaxConns = 20
	pool, err := pgxpool.NewWithConfig(ctx, config)
	check(err)
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	check(err)
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	check(err)
	left := &atomic.Int64{}
	left.Store(int64(count))
	done := make(chan struct{})
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{left: left, done: done})
	client, err := river.NewClient(driver, &river.Config{
		Logger:            slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: concurrency}},
		Workers:           workers,
		FetchCooldown:     time.Millisecond,
		FetchPollInterval: 10 * time.Millisecond,
	})
	check(err)
	for at := 0; at < count; at += 1000 {
		var batch []river.InsertManyParams
		for n := at; n < min(at+1000, count); n++ {
			batch = append(batch, river.InsertManyParams{Args: args{N: n}})
		}
		_, err = client.InsertMany(ctx, batch)
		check(err)
	}
	began := time.Now()
	check(client.Start(ctx))
	<-done
	// What has run counts once it is recorded.
	for {
		var open int
		check(pool.QueryRow(ctx, "SELECT count(*) FROM river_job WHERE state <> 'completed'").Scan(&open))
		if open == 0 {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	seconds := time.Since(began).Seconds()
	check(client.Stop(ctx))
	check(json.NewEncoder(os.Stdout).Encode(map[string]float64{"seconds": seconds}))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
