// A JavaScript service: a map of documents, of which a request reads some and digests them.
"use strict";
const crypto = require("crypto");
const http = require("http"), zlib = require("zlib"), url = require("url"), vm = require("vm");
const COUNT = 40000;
const documents = new Map();
for (let i = 0; i < COUNT; i++)
	documents.set("document:" + i, { id: i, name: "name " + i, tags: ["t" + (i % 97), "u" + (i % 89)], weight: (i * 7919) % 10007 });

function answer(n) {
	const hash = crypto.createHash("sha256");
	for (let k = 0; k < 500; k++)
		hash.update(JSON.stringify(documents.get("document:" + ((n * 131 + k * 7907) % COUNT))));
	return hash.digest("hex");
}

answer(0);
process.stdout.write("READY\n");
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
	const words = line.trim().split(" ");
	if (words[0] === "ask")
		process.stdout.write("answer " + words[1] + " " + answer(Number(words[1])) + "\n");
});
