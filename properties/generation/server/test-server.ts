import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { type RunningServer, type ServerOptions, serve } from '../../../generation/server/index.js'

/** A chat template with tools, in the form of Qwen's; images and texts as the demo model's own template has them. */
export const toolTemplate = `{% if tools %}<|im_start|>system
Tools:
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}{% if part.type == 'image' %}<IMG_CONTEXT>
{% elif part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif %}{% for call in message.tool_calls %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`

/** A server on a free port of this machine, and the lines of its log. */
export const startServer = async (options: ServerOptions = {}): Promise<RunningServer & { readonly log: readonly string[] }> => {
  const log: string[] = []
  const server = await serve({ port: 0, logTo: { write: (line) => log.push(line) }, ...options })
  return { ...server, log }
}

export const imageUrl = async (name: 'circle' | 'shapes' | 'squares'): Promise<string> => {
  const path = fileURLToPath(new URL(`../../../generation/demo/${name}.png`, import.meta.url))
  return `data:image/png;base64,${(await readFile(path)).toString('base64')}`
}

/** A question about an image, as a message. */
export const question = (text: string, ...urls: readonly string[]) => ({
  role: 'user',
  content: [...urls.map((url) => ({ type: 'image_url', image_url: { url } })), { type: 'text', text }]
})

export interface Answered {
  readonly status: number
  readonly headers: Headers
  // biome-ignore lint/suspicious/noExplicitAny: the tests read fields of many kinds of answers
  readonly body: any
}

/** Sends JSON to a path of the server and reads the JSON of its answer. */
export const post = async (url: string, path: string, body: unknown, init: RequestInit = {}): Promise<Answered> => {
  const headers = { 'content-type': 'application/json', ...init.headers }
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  const response = await fetch(`${url}${path}`, { method: 'POST', ...init, headers, body: text })
  return { status: response.status, headers: response.headers, body: await response.json() }
}

export const ask = (url: string, body: object, init?: RequestInit): Promise<Answered> =>
  post(url, '/v1/chat/completions', body, init)

/** The chunks of a streamed answer, of a chat unless another path is given. */
export const readStream = async (
  url: string,
  body: object,
  { path = '/v1/chat/completions', ...init }: RequestInit & { readonly path?: string } = {}
  // biome-ignore lint/suspicious/noExplicitAny: the tests read fields of chunks
): Promise<readonly any[]> => {
  const headers = { 'content-type': 'application/json', ...init.headers }
  const text = JSON.stringify({ ...body, stream: true })
  const response = await fetch(`${url}${path}`, { method: 'POST', ...init, headers, body: text })
  assert.equal(response.status, 200)
  assert.match(response.headers.get('content-type') ?? '', /^text\/event-stream/)
  const events = (await response.text()).split('\n\n').filter((event) => event.startsWith('data: '))
  assert.equal(events.at(-1), 'data: [DONE]')
  return events.slice(0, -1).map((event) => JSON.parse(event.slice(6)))
}
