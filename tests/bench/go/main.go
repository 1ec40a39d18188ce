// Command streamload asks a server for streamed completions in a closed loop and says when their first text came.
//
// streamload URL CLIENTS BODIES: each client posts the next body of the file, one JSON object a line, until none is
// left. It prints one line of JSON; an answer that fails ends it with a message and 1.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

type answer struct {
	FirstMs float64 `json:"first_ms"`
	TotalMs float64 `json:"total_ms"`
	Tokens  int     `json:"tokens"`
}

type event struct {
	Choices []struct {
		Text  string `json:"text"`
		Delta struct {
			Content string `json:"content"`
		} `json:"delta"`
	} `json:"choices"`
	Usage *struct {
		CompletionTokens int `json:"completion_tokens"`
	} `json:"usage"`
	Error json.RawMessage `json:"error"`
}

func ask(client *http.Client, url string, body []byte) (answer, error) {
	start := time.Now()
	milliseconds := func() float64 { return float64(time.Since(start).Microseconds()) / 1e3 }
	response, err := client.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(response.Body, 500))
		return answer{}, fmt.Errorf("answered %d: %s", response.StatusCode, said)
	}
	var got answer
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, isData := strings.CutPrefix(lines.Text(), "data: ")
		if !isData || data == "[DONE]" {
			continue
		}
		var seen event
		if err := json.Unmarshal([]byte(data), &seen); err != nil {
			return answer{}, fmt.Errorf("sent an event that is not JSON: %w", err)
		}
		if len(seen.Error) > 0 {
			return answer{}, fmt.Errorf("sent an error event: %s", seen.Error)
		}
		for _, choice := range seen.Choices {
			if got.FirstMs == 0 && choice.Text+choice.Delta.Content != "" {
				got.FirstMs = milliseconds()
			}
		}
		if seen.Usage != nil {
			got.Tokens = seen.Usage.CompletionTokens
		}
	}
	got.TotalMs = milliseconds()
	if err := lines.Err(); err != nil {
		return answer{}, fmt.Errorf("broke off: %w", err)
	}
	if got.Tokens == 0 || got.FirstMs == 0 {
		return answer{}, errors.New("ended without text or without saying how many tokens it had")
	}
	return got, nil
}

func run(url string, clients int, bodies [][]byte) (map[string]any, error) {
	// no proxy from the environment stands in between
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}, Timeout: 5 * time.Minute}
	waiting := make(chan []byte, len(bodies))
	for _, body := range bodies {
		waiting <- body
	}
	close(waiting)
	var (
		group   sync.WaitGroup
		lock    sync.Mutex
		answers []answer
		failed  error
	)
	start := time.Now()
	for range clients {
		group.Go(func() {
			for body := range waiting {
				got, err := ask(client, url, body)
				lock.Lock()
				answers, failed = append(answers, got), errors.Join(failed, err)
				lock.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	group.Wait()
	return map[string]any{"seconds": time.Since(start).Seconds(), "answers": answers}, failed
}

func main() {
	if len(os.Args) != 4 {
		fail(errors.New("expected: streamload URL CLIENTS BODIES"))
	}
	clients, err := strconv.Atoi(os.Args[2])
	if err != nil || clients < 1 {
		fail(errors.New("CLIENTS is not a number from 1"))
	}
	content, err := os.ReadFile(os.Args[3])
	if err != nil {
		fail(err)
	}
	seen, err := run(os.Args[1], clients, bytes.Split(bytes.TrimSpace(content), []byte("\n")))
	if err != nil {
		fail(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(seen); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
