// Command upstream answers every POST with a chat completion as a stream of frames that are numbered and dated.
//
// upstream PORT ADDRESS…: it listens at this port of each address. The only message of a request says what is wanted,
// "100 frames, 50 ms apart"; a pause comes before the first frame too. A frame's text is its number, a blank and the
// time at which it was written, nanoseconds: whoever reads it on this machine knows how long it was on its way.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

type request struct {
	Messages []struct {
		Content string `json:"content"`
	} `json:"messages"`
}

const chunk = `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench",` +
	`"choices":[{"index":0,"delta":%s,"finish_reason":%s}]}` + "\n\n"

func stream(writer http.ResponseWriter, from *http.Request) {
	if from.Method != http.MethodPost {
		return // somebody asks whether we live
	}
	var asked request
	var frames, milliseconds int
	if err := json.NewDecoder(from.Body).Decode(&asked); err != nil || len(asked.Messages) != 1 {
		http.Error(writer, `{"error":{"message":"expected one message"}}`, http.StatusBadRequest)
		return
	}
	if _, err := fmt.Sscanf(asked.Messages[0].Content, "%d frames, %d ms apart", &frames, &milliseconds); err != nil {
		http.Error(writer, `{"error":{"message":"expected: 100 frames, 50 ms apart"}}`, http.StatusBadRequest)
		return
	}
	out := http.NewResponseController(writer)
	writer.Header().Set("Content-Type", "text/event-stream")
	if out.Flush() != nil {
		return
	}
	next := time.Now()
	for number := range frames {
		// not from when the last one was written: one that is late does not delay the others
		next = next.Add(time.Duration(milliseconds) * time.Millisecond)
		time.Sleep(time.Until(next))
		delta := fmt.Sprintf(`{"role":"assistant","content":"%d %d "}`, number, time.Now().UnixNano())
		if fmt.Fprintf(writer, chunk, delta, "null"); out.Flush() != nil {
			return // nobody reads any more
		}
	}
	fmt.Fprintf(writer, chunk+"data: [DONE]\n\n", "{}", `"stop"`)
}

func main() {
	if len(os.Args) < 3 {
		log.Fatal("expected: upstream PORT ADDRESS…")
	}
	failed := make(chan error)
	for _, address := range os.Args[2:] {
		listener, err := net.Listen("tcp", net.JoinHostPort(address, os.Args[1]))
		if err != nil {
			log.Fatal(err)
		}
		go func() { failed <- http.Serve(listener, http.HandlerFunc(stream)) }()
	}
	log.Fatal(<-failed)
}
