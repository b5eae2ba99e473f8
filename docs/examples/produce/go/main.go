// One event by franz-go, whose default partitioner is murmur2: go run . localhost:9092 flowchain.events.v1
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	servers, topic := os.Args[1], os.Args[2]
	client, err := kgo.NewClient(kgo.SeedBrokers(servers))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	execution := "order-go"
	event, err := json.Marshal(map[string]any{
		"type":         "step.completed",
		"chain":        "order_to_cash",
		"execution":    execution,
		"step":         "charge_card",
		"time_unix_us": time.Now().UnixMicro(),
	})
	if err != nil {
		log.Fatal(err)
	}
	record := &kgo.Record{Topic: topic, Key: []byte(execution), Value: event}
	if err := client.ProduceSync(context.Background(), record).FirstErr(); err != nil {
		log.Fatal(err)
	}
}
