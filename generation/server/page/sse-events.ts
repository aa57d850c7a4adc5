/** The `data` of server-sent events, in order, without the last one, `[DONE]`. Comments are skipped. */
export async function* sseEvents(body: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let buffer = ''
  for await (const bytes of body) {
    buffer += decoder.decode(bytes, { stream: true })
    const events = buffer.split('\n\n')
    buffer = events.pop()!
    for (const event of events) {
      const lines = event.split('\n').filter((line) => line.startsWith('data:'))
      const data = lines.map((line) => line.slice(line[5] === ' ' ? 6 : 5)).join('\n')
      if (data === '[DONE]') return
      if (lines.length > 0) yield data
    }
  }
}
