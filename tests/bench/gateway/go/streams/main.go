// Command streams asks for streams in a closed loop and says what of them came: whether every frame did, in its order,
// when the first one did, and how long frames were on their way.
//
// streams URL CLIENTS STREAMS FRAMES BODY: so many clients ask for so many streams of so many frames in all. It prints
// one line of JSON. A stream that is not whole is counted, with the first reason why.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const patience = 90 * time.Second

type event struct {
	Choices []struct {
		Delta struct {
			Content string `json:"content"`
		} `json:"delta"`
	} `json:"choices"`
}

type seen struct {
	first  float64
	delays []float64
}

type loop struct {
	client     *http.Client
	url, body  string
	frames     int
	open, most atomic.Int64
}

func milliseconds(since time.Duration) float64 { return float64(since.Nanoseconds()) / 1e6 }

// ask reads one stream; the error says why it is not whole.
func (l *loop) ask() (seen, error) {
	var got seen
	start := time.Now()
	response, err := l.client.Post(l.url, "application/json", strings.NewReader(l.body))
	if err != nil {
		return got, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(response.Body, 300))
		return got, fmt.Errorf("answered %d: %s", response.StatusCode, said)
	}
	l.most.Store(max(l.most.Load(), l.open.Add(1))) // a client that is missed once is seen by the next one
	defer l.open.Add(-1)
	done := false
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		data, isData := strings.CutPrefix(lines.Text(), "data: ")
		if !isData {
			continue
		}
		if done = data == "[DONE]"; done {
			continue
		}
		var found event
		if err := json.Unmarshal([]byte(data), &found); err != nil {
			return got, fmt.Errorf("sent an event that is not JSON: %w", err)
		}
		for _, choice := range found.Choices {
			text := choice.Delta.Content
			if text == "" {
				continue
			}
			now := time.Now()
			var number int
			var nanoseconds int64
			// some who stand in between join frames that came together
			for rest := strings.Fields(text); len(rest) > 0; rest = rest[min(2, len(rest)):] {
				if _, err := fmt.Sscanf(strings.Join(rest[:min(2, len(rest))], " "), "%d %d", &number, &nanoseconds); err != nil {
					return got, fmt.Errorf("sent a frame that is none: %q", text)
				}
				if number != len(got.delays) {
					return got, fmt.Errorf("sent frame %d instead of %d", number, len(got.delays))
				}
				got.delays = append(got.delays, milliseconds(now.Sub(time.Unix(0, nanoseconds))))
			}
			if got.first == 0 {
				got.first = milliseconds(now.Sub(start))
			}
		}
	}
	switch err := lines.Err(); {
	case err != nil:
		return got, fmt.Errorf("broke off after %d frames: %w", len(got.delays), err)
	case len(got.delays) != l.frames || !done:
		return got, fmt.Errorf("ended after %d frames of %d", len(got.delays), l.frames)
	}
	return got, nil
}

func run(l *loop, clients, streams int) map[string]any {
	var (
		group          sync.WaitGroup
		lock           sync.Mutex
		left           atomic.Int64
		whole          int
		firsts, delays []float64
		reason         string
		start          = time.Now()
	)
	left.Store(int64(streams))
	for range clients {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				got, err := l.ask()
				lock.Lock()
				if err == nil {
					whole++
				} else if reason == "" {
					reason = err.Error()
				}
				if len(got.delays) > 0 {
					firsts = append(firsts, got.first)
				}
				delays = append(delays, got.delays...)
				lock.Unlock()
			}
		})
	}
	group.Wait()
	taken := time.Since(start).Seconds()
	slices.Sort(firsts)
	slices.Sort(delays)
	return map[string]any{
		"seconds": taken, "whole": whole, "open": l.most.Load(), "frames": len(delays), "reason": reason,
		"first_p50_ms": quantile(firsts, 50), "first_p99_ms": quantile(firsts, 99),
		"frame_p50_ms": quantile(delays, 50), "frame_p99_ms": quantile(delays, 99),
	}
}

func quantile(sorted []float64, percent int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, len(sorted)*percent/100)]
}

func main() {
	if len(os.Args) != 6 {
		log.Fatal("expected: streams URL CLIENTS STREAMS FRAMES BODY")
	}
	var numbers [3]int
	var failed error
	for at, word := range os.Args[2:5] {
		number, err := strconv.Atoi(word)
		numbers[at], failed = number, errors.Join(failed, err)
	}
	if failed != nil {
		log.Fatal(failed)
	}
	// no proxy from the environment stands in between
	transport := &http.Transport{MaxIdleConnsPerHost: numbers[0]}
	l := &loop{
		client: &http.Client{Transport: transport, Timeout: patience},
		url:    os.Args[1], body: os.Args[5], frames: numbers[2],
	}
	if err := json.NewEncoder(os.Stdout).Encode(run(l, numbers[0], numbers[1])); err != nil {
		log.Fatal(err)
	}
}
