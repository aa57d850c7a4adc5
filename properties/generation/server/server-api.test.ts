import assert from 'node:assert/strict'
import { answer } from '../../../generation/answer.js'
import { load } from '../../../generation/checkpoint/load.js'
import { ask, imageUrl, post, question, readStream, startServer, toolTemplate } from './test-server.js'

const tools = [
  {
    type: 'function',
    function: {
      name: 'paint',
      parameters: { type: 'object', properties: { colour: { enum: ['red', 'blue'] } }, required: ['colour'] }
    }
  }
]

describe('server: the API', () => {
  let server: Awaited<ReturnType<typeof startServer>>
  let [circle, shapes] = ['', '']
  before(async () => {
    ;[circle, shapes] = await Promise.all([imageUrl('circle'), imageUrl('shapes')])
    server = await startServer({ defaults: { chatTemplate: toolTemplate } })
  })
  after(() => server.close())

  it('greedy answers equal those of the library, streamed or not, about one image or two', async () => {
    const internvl = await load()
    const conversations = [
      [question('What color is the background?', circle)],
      [question('Describe the image.', shapes)],
      [question('Describe the images.', shapes, circle)],
      [
        { role: 'system', content: 'Be brief.' },
        { role: 'user', content: 'Who are you?' }
      ]
    ]
    const expected = []
    for (const messages of conversations) {
      const { texts } = await answer(internvl, [messages as never], { maxNewTokens: 24 })
      expected.push(texts[0])
    }
    internvl.dispose()
    const whole = await Promise.all(conversations.map((messages) => ask(server.url, { messages, max_tokens: 24 })))
    assert.deepEqual(
      whole.map(({ body }) => body.choices[0].message.content),
      expected
    )
    const streams = await Promise.all(
      conversations.map((messages) => readStream(server.url, { messages, max_completion_tokens: 24 }))
    )
    const joined = streams.map((chunks) => chunks.map(({ choices }) => choices[0].delta.content ?? '').join(''))
    assert.deepEqual(joined, expected)
  })

  it('usage counts image tokens apart; the last chunk of a stream has it when asked for', async () => {
    const request = { messages: [question('Describe the image.', shapes)], max_tokens: 5 }
    const { body } = await ask(server.url, request)
    const { prompt_tokens: total, prompt_tokens_details: details, completion_tokens } = body.usage
    assert.equal(details.image_tokens + details.text_tokens, total)
    assert.ok(details.image_tokens > 0 && details.tiles > 0)
    assert.equal(completion_tokens, 5)
    const counted = await post(server.url, '/tokenize', { messages: request.messages })
    assert.deepEqual([counted.body.count, counted.body.image_tokens], [total, details.image_tokens])
    const chunks = await readStream(server.url, { ...request, stream_options: { include_usage: true } })
    assert.deepEqual(chunks.at(-1).choices, [])
    assert.equal(chunks.at(-1).usage.total_tokens, body.usage.total_tokens)
    const low = await ask(server.url, {
      ...request,
      messages: [
        {
          role: 'user',
          content: [
            { type: 'input_image', image_url: shapes, detail: 'low' },
            { type: 'input_text', text: 'Hi' }
          ]
        }
      ]
    })
    assert.equal(low.body.usage.prompt_tokens_details.tiles, 1)
  })

  it('a next turn computes only its new tokens', async () => {
    const first = [question('How many circles are there?', shapes)]
    const { body } = await ask(server.url, { messages: first, max_tokens: 8 })
    const next = [...first, body.choices[0].message, { role: 'user', content: 'Are you sure?' }]
    const { body: second } = await ask(server.url, { messages: next, max_tokens: 8 })
    assert.ok(second.usage.prompt_tokens_details.cached_tokens >= body.usage.prompt_tokens - 1)
  })

  it('n answers, seeds, stop strings, log-probabilities, biases and prefills', async () => {
    const messages = [{ role: 'user', content: 'Tell me a story.' }]
    const sampled = { messages, n: 3, temperature: 1.5, seed: 7, max_tokens: 12, logprobs: true, top_logprobs: 2 }
    const [a, b] = [await ask(server.url, sampled), await ask(server.url, sampled)]
    const texts = ({ body }: typeof a): readonly string[] =>
      body.choices.map((choice: { message: { content: string } }) => choice.message.content)
    assert.deepEqual(texts(a), texts(b))
    assert.equal(new Set(texts(a)).size, 3)
    for (const { logprobs, message } of a.body.choices) {
      assert.equal(
        logprobs.content
          .map(({ token }: { token: string }) => token)
          .join('')
          .replaceAll(/<\/?(?:ref|box)>/g, '') // special tokens, which the content leaves out
          .startsWith(message.content),
        true
      )
      for (const { top_logprobs } of logprobs.content) {
        assert.equal(top_logprobs.length, 2)
        assert.ok(top_logprobs[0].logprob >= top_logprobs[1].logprob)
      }
    }
    const greedy = await ask(server.url, { messages, n: 2, temperature: 0, max_tokens: 12 })
    assert.equal(greedy.body.choices[0].message.content, greedy.body.choices[1].message.content)
    const text: string = greedy.body.choices[0].message.content
    const stop = text.slice(4, 7)
    const stopped = await ask(server.url, { messages, stop, max_tokens: 12 })
    assert.deepEqual(
      [stopped.body.choices[0].message.content, stopped.body.choices[0].finish_reason],
      [text.slice(0, text.indexOf(stop)), 'stop']
    )
    const [token] = (await post(server.url, '/tokenize', { prompt: 'x' })).body.tokens
    const biased = await ask(server.url, { messages, logit_bias: { [token]: 100 }, max_tokens: 4, frequency_penalty: 0 })
    assert.equal(biased.body.choices[0].message.content, 'xxxx')
    const prefilled = await ask(server.url, {
      messages: [...messages, { role: 'assistant', content: text.slice(0, 4) }],
      max_tokens: 40
    })
    assert.equal(prefilled.status, 200)
    assert.notEqual(prefilled.body.choices[0].message.content, '')
    const penalized = await ask(server.url, {
      messages,
      logit_bias: { [token]: 30 },
      frequency_penalty: 2,
      presence_penalty: 2,
      max_tokens: 60
    })
    assert.notEqual(penalized.body.choices[0].message.content, 'x'.repeat(60))
  })

  it('response formats: the answer parses', async () => {
    const messages = [question('What colour is the background?', circle)]
    const schema = {
      type: 'object',
      properties: { colour: { enum: ['red', 'blue', 'white'] }, ok: { type: 'boolean' } },
      required: ['colour']
    }
    const json = { type: 'json_schema', json_schema: { name: 'colour', schema } }
    const { body } = await ask(server.url, { messages, response_format: json, n: 2, temperature: 2, seed: 3 })
    for (const { message } of body.choices) assert.ok(schema.properties.colour.enum.includes(JSON.parse(message.content).colour))
    const guided = async (fields: object) =>
      (await ask(server.url, { messages, max_tokens: 60, ...fields })).body.choices[0].message.content
    assert.match(await guided({ guided_regex: '(yes|no)!' }), /^(yes|no)!$/)
    assert.match(await guided({ guided_grammar: 'root ::= "a" [0-9] "b"' }), /^a\db$/)
    assert.ok(['cat', 'dog'].includes(await guided({ guided_choice: ['cat', 'dog'] })))
  })

  it('tools: a forced call is parsed, streamed or not, and its result continues the conversation', async () => {
    const messages = [question('Paint it.', circle)]
    for (const tool_choice of ['required', { type: 'function', function: { name: 'paint' } }]) {
      const { body } = await ask(server.url, { messages, tools, tool_choice, max_tokens: 100 })
      const { message, finish_reason } = body.choices[0]
      assert.deepEqual([message.content, finish_reason], [null, 'tool_calls'])
      const [call] = message.tool_calls
      assert.equal(call.function.name, 'paint')
      assert.ok(['red', 'blue'].includes(JSON.parse(call.function.arguments).colour))
      const result = { role: 'tool', tool_call_id: call.id, content: 'done' }
      const next = await ask(server.url, { messages: [...messages, message, result], tools, max_tokens: 5 })
      assert.equal(next.status, 200)
    }
    const chunks = await readStream(server.url, { messages, tools, tool_choice: 'required', max_tokens: 100 })
    const calls = chunks.flatMap(({ choices }) => choices[0]?.delta.tool_calls ?? [])
    assert.equal(calls[0].function.name, 'paint')
    assert.equal(chunks.at(-1).choices[0].finish_reason, 'tool_calls')
    assert.ok(chunks.every(({ choices }) => !choices[0]?.delta.content))
  })

  it('embeddings: base64 and numbers are the same vector', async () => {
    const floats = await post(server.url, '/v1/embeddings', { input: [circle, shapes] })
    const packed = await post(server.url, '/v1/embeddings', { input: circle, encoding_format: 'base64' })
    assert.equal(floats.body.data.length, 2)
    const bytes = Buffer.from(packed.body.data[0].embedding, 'base64')
    const vector = [...new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length))]
    assert.deepEqual(vector, floats.body.data[0].embedding)
  })

  it('explain: the answer, and a heat map for each word or for one; errors name the field', async () => {
    const messages = [question('What color is the shape at the top left?', shapes)]
    const { status, body } = await post(server.url, '/v1/explain', { messages, cells: 3 })
    assert.equal(status, 200)
    assert.deepEqual([body.answer, body.data.map((part: { text: string }) => part.text)], ['Green.', ['Green', '.']])
    for (const { heat_map, tokens } of body.data) {
      assert.match(heat_map, /^data:image\/jpeg;base64,\/9j/)
      assert.ok(tokens.length > 0)
    }
    const one = await post(server.url, '/v1/explain', { messages, method: 'attention', token: 'green' })
    assert.equal(one.body.data.length, 1)
    const refused = [
      [{ messages, token: 'zebra', method: 'attention' }, 'token'],
      [{ messages, method: 'lime' }, 'method'],
      [{ messages, cells: 33 }, 'cells'],
      [{ messages, image: 1, method: 'attention' }, 'image'],
      [{ messages: [{ role: 'user', content: 'Hello!' }] }, 'messages']
    ] as const
    for (const [request, param] of refused) {
      const answer = await post(server.url, '/v1/explain', request)
      assert.deepEqual([answer.status, answer.body.error.param], [400, param], JSON.stringify(answer.body))
    }
  })

  it('health, models, metrics, tokens, the reference', async () => {
    const get = async (path: string) => fetch(`${server.url}${path}`)
    // biome-ignore lint/suspicious/noExplicitAny: fields of several answers
    const json = async (path: string): Promise<any> => (await get(path)).json()
    assert.equal((await json('/health')).status, 'ready')
    const { data } = await json('/v1/models')
    assert.equal(data[0].id, 'internvl-demo')
    assert.equal((await json('/v1/models/internvl-demo')).id, 'internvl-demo')
    assert.equal((await get('/v1/models/other')).status, 404)
    assert.match(await (await get('/metrics')).text(), /internvl_first_token_seconds_count [1-9]/)
    const { paths } = await json('/openapi.json')
    assert.ok(['/v1/chat/completions', '/v1/embeddings', '/v1/explain', '/tokenize', '/health'].every((path) => path in paths))
    assert.match(await (await get('/reference')).text(), /frequency_penalty/)
    const { tokens } = (await post(server.url, '/tokenize', { prompt: 'red circle' })).body
    assert.equal((await post(server.url, '/detokenize', { tokens })).body.prompt, 'red circle')
    const unknown = await post(server.url, '/detokenize', { tokens: [...tokens, 99_999_999] })
    assert.deepEqual([unknown.status, unknown.body.error.param], [400, `tokens[${tokens.length}]`])
  })

  it('errors have the shape of OpenAI and name the field', async () => {
    const user = [{ role: 'user', content: 'Hi' }]
    const image = (url: string) => [question('Hi', circle, url)]
    const schema = (value: unknown) => ({ type: 'json_schema', json_schema: { schema: value } })
    const badTool = { type: 'function', function: { name: 'x', parameters: { type: 'frob' } } }
    const cases: readonly (readonly [body: unknown, status: number, param: string | null])[] = [
      ['{"messages": [', 400, null],
      [[], 400, null],
      [{}, 400, 'messages'],
      [{ messages: [] }, 400, 'messages'],
      [{ messages: 'Hi' }, 400, 'messages'],
      [{ messages: [{ role: 'robot', content: 'Hi' }] }, 400, 'messages[0].role'],
      [{ messages: [{ role: 'user', content: 3 }] }, 400, 'messages[0].content'],
      [{ messages: [{ role: 'user', content: [{ type: 'audio' }] }] }, 400, 'messages[0].content[0].type'],
      [{ messages: image('data:image/png;base64,AAAAAAAAAAAAAAAAAAAA') }, 400, null],
      [{ messages: image('ftp://x/y.png') }, 400, 'messages[0].content[1].image_url.url'],
      [{ messages: image('https://example.org/y.png') }, 400, 'messages[0].content[1].image_url.url'],
      [{ model: 'gpt-4o', messages: user }, 404, 'model'],
      [{ messages: user, temperature: 'hot' }, 400, 'temperature'],
      [{ messages: user, temperature: -1 }, 400, 'temperature'],
      [{ messages: user, top_p: -0.1 }, 400, 'top_p'],
      [{ messages: user, min_tokens: 5, max_tokens: 4 }, 400, 'min_tokens'],
      [{ messages: user, ignore_eos: true, response_format: { type: 'json_object' } }, 400, 'ignore_eos'],
      [{ messages: user, n: 0 }, 400, 'n'],
      [{ messages: user, n: 60 }, 400, 'n'],
      [{ messages: user, max_tokens: 0 }, 400, 'max_tokens'],
      [{ messages: user, top_logprobs: 3 }, 400, 'top_logprobs'],
      [{ messages: user, logprobs: true, top_logprobs: 21 }, 400, 'top_logprobs'],
      [{ messages: user, logit_bias: { x: 1 } }, 400, 'logit_bias.x'],
      [{ messages: user, stop: [''] }, 400, 'stop[0]'],
      [{ messages: user, max_patches: 5000 }, 400, 'max_patches'],
      [{ messages: user, num_beams: 2, n: 3 }, 400, 'n'],
      [{ messages: user, response_format: { type: 'xml' } }, 400, 'response_format.type'],
      [{ messages: user, response_format: schema({ type: 'frob' }) }, 400, 'response_format'],
      [{ messages: user, guided_regex: '(a', max_tokens: 3 }, 400, 'guided_regex'],
      [{ messages: user, tools: [badTool], tool_choice: 'required' }, 400, 'tools'],
      [{ messages: user, tools, tool_choice: 'required', response_format: { type: 'json_object' } }, 400, 'response_format'],
      [{ messages: user, logit_bias: { 99999999: 1 } }, 400, 'logit_bias.99999999'],
      [{ messages: user, modalities: ['text', 'audio'] }, 400, 'modalities[1]'],
      [{ messages: user, num_beams: 2, logprobs: true, top_logprobs: 2 }, 400, 'top_logprobs'],
      [{ messages: user, seed: 1.5 }, 400, 'seed'],
      [{ messages: [{ role: 'user', content: null }] }, 400, 'messages[0].content'],
      [{ messages: user, guided_regex: 'a', response_format: { type: 'json_object' } }, 400, 'guided_regex'],
      [{ messages: user, tool_choice: 'required' }, 400, 'tool_choice'],
      [{ messages: user, tools: [{ type: 'function', function: { name: 'a b' } }] }, 400, 'tools[0].function.name'],
      [{ messages: user, tools, tool_choice: { type: 'function', function: { name: 'x' } } }, 400, 'tool_choice.function.name'],
      [{ messages: user, chat_template_kwargs: { a: '<|im_end|>' } }, 400, 'chat_template_kwargs.a'],
      [{ messages: user, functions: [] }, 400, 'functions'],
      [{ messages: [{ role: 'user', content: 'red '.repeat(5000) }] }, 400, 'messages'],
      [{ messages: user, response_format: schema({ $ref: '#/$defs/none' }) }, 400, 'response_format']
    ]
    for (const [body, status, param] of cases) {
      const answered = await ask(server.url, body as object)
      const { error } = answered.body
      const shown = `${JSON.stringify(body).slice(0, 120)}: ${JSON.stringify(answered.body)}`
      assert.equal(answered.status, status, shown)
      assert.equal(typeof error.message, 'string')
      assert.match(error.type, /^(invalid_request_error|not_found_error)$/)
      if (param !== null) assert.equal(error.param, param, shown)
      assert.ok(!/ {4}at |picojson|Check failed/.test(error.message), `no internals: ${shown}`)
    }
  })

  it('takes what clients send beside their fields', async () => {
    const called = { id: 'a', type: 'function', function: { name: 'paint', arguments: '' } }
    const messages = [
      { role: 'user', content: 'Hi' },
      { role: 'assistant', content: [{ type: 'refusal', refusal: 'No.' }], refusal: null },
      { role: 'user', content: 'Please.' },
      { role: 'assistant', content: null, tool_calls: [called] },
      { role: 'tool', tool_call_id: 'a', content: [{ type: 'text', text: 'done' }] }
    ]
    const bare = { type: 'function', function: { name: 'paint', parameters: null, strict: null } }
    const fields = { user: 'me', store: true, metadata: {}, modalities: ['text'], stop: null, tools: [bare], tool_choice: 'auto' }
    const body = JSON.stringify({ messages, ...fields, max_tokens: 1, seed: 0 }).replace('"seed":0', '"seed":9223372036854775807')
    const { status, body: answered } = await post(server.url, '/v1/chat/completions', body)
    assert.equal(status, 200, JSON.stringify(answered))
  })

  it('a prompt longer than the context has the code that clients look for', async () => {
    const { body } = await ask(server.url, { messages: [{ role: 'user', content: 'red '.repeat(5000) }] })
    assert.equal(body.error.code, 'context_length_exceeded')
    assert.match(body.error.message, /^messages: the prompt has \d+ tokens, the model has 4096 positions/)
  })

  it('odd requests of real clients', async () => {
    const hi = [{ role: 'user', content: 'Who are you?' }]
    const answered = async (fields: object) => {
      const { status, body } = await ask(server.url, { messages: hi, max_tokens: 8, ...fields })
      assert.equal(status, 200, JSON.stringify(body))
      return body
    }
    const text = async (fields: object): Promise<string> => (await answered(fields)).choices[0].message.content
    const expected = await text({})
    assert.equal(await text({ model: '' }), expected)
    assert.equal(await text({ temperature: 2, top_p: 0, seed: 3 }), expected)
    assert.equal(await text({ stop: ['@@', '##', '\n\n', 'zz'] }), expected)
    assert.equal(await text({ frequency_penalty: 0, logit_bias: {}, tools: [], user: '', reasoning_effort: 'low' }), expected)
    for (const detail of [null, 'original', 'high']) {
      const content = [{ type: 'image_url', image_url: { url: circle, detail } }]
      assert.ok((await answered({ messages: [{ role: 'user', content }] })).usage.prompt_tokens_details.image_tokens > 0)
    }
    const schema = {
      $defs: {
        node: {
          type: 'object',
          properties: { next: { anyOf: [{ $ref: '#/$defs/node' }, { type: 'null' }] } },
          required: ['next']
        }
      },
      $ref: '#/$defs/node'
    }
    const format = { type: 'json_schema', json_schema: { name: 'list', strict: true, schema } }
    assert.ok('next' in JSON.parse(await text({ response_format: format, max_tokens: 100 })))
    const many = await answered({ messages: [question('How many?', ...Array<string>(30).fill(circle))] })
    assert.equal(many.usage.prompt_tokens_details.tiles, 30)
    const logs = await answered({ tools, tool_choice: 'auto', logprobs: true, top_logprobs: 1 })
    assert.equal(logs.choices[0].logprobs.content.length, logs.usage.completion_tokens)
    const [first, second] = [0, 1].map((index) => ({ index, texts: [] as string[] }))
    const chunks = await readStream(server.url, {
      messages: hi,
      n: 2,
      temperature: 0,
      max_tokens: 8,
      stream_options: { include_usage: true }
    })
    for (const { choices } of chunks)
      for (const { index, delta } of choices) (index === 0 ? first : second)!.texts.push(delta.content ?? '')
    assert.deepEqual([first!.texts.join(''), second!.texts.join('')], [expected, expected])
    assert.equal(chunks.at(-1).usage.completion_tokens, 16)
  })

  it('min_tokens and ignore_eos: the answer does not end before', async () => {
    const messages = [{ role: 'user', content: 'Who are you?' }]
    const answerOf = async (fields: object) => (await ask(server.url, { messages, max_tokens: 90, ...fields })).body
    const { usage: whole, choices } = await answerOf({})
    assert.equal(choices[0].finish_reason, 'stop')
    const longer = await answerOf({ min_tokens: whole.completion_tokens + 5 })
    assert.ok(longer.usage.completion_tokens > whole.completion_tokens + 5)
    const all = await answerOf({ ignore_eos: true })
    assert.deepEqual([all.usage.completion_tokens, all.choices[0].finish_reason], [90, 'length'])
  })

  it('other methods, content types and paths', async () => {
    const body = JSON.stringify({ messages: [{ role: 'user', content: 'Hi' }], max_tokens: 1 })
    const send = async (path: string, init: RequestInit) => {
      const response = await fetch(`${server.url}${path}`, init)
      const text = await response.text()
      return { status: response.status, allow: response.headers.get('allow'), text }
    }
    const chat = '/v1/chat/completions'
    const json = { 'content-type': 'application/json; charset=UTF-8' }
    assert.equal((await send(chat, { method: 'POST', body: `\ufeff${body}`, headers: json })).status, 200)
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data'])
      assert.equal((await send(chat, { method: 'POST', body, headers: { 'content-type': type } })).status, 415, type)
    assert.deepEqual(
      [(await send('/v1/models', { method: 'HEAD' })).status, (await send(chat, { method: 'HEAD' })).status],
      [200, 405]
    )
    const options = await send(chat, { method: 'OPTIONS' })
    assert.deepEqual([options.status, options.allow], [204, 'POST, OPTIONS'])
    for (const path of [`${chat}/`, '/chat/completions', '/v1/v1/chat/completions', '/v1/completions', '/v1/responses']) {
      const { status, text } = await send(path, { method: 'POST', body, headers: json })
      assert.deepEqual([status, text.includes('; the path is /v1/chat/completions')], [404, true], path)
    }
  })

  it('skip_special_tokens: false keeps special tokens, without the end token', async () => {
    const [token] = (await post(server.url, '/tokenize', { prompt: '<|im_start|>' })).body.tokens
    const request = { messages: [{ role: 'user', content: 'Hi' }], logit_bias: { [token]: 100 }, max_tokens: 2 }
    const text = async (fields: object) => (await ask(server.url, { ...request, ...fields })).body.choices[0].message.content
    assert.equal(await text({ skip_special_tokens: false }), '<|im_start|><|im_start|>')
    assert.equal(await text({}), '')
  })

  it('the log has a line for each request with its id, and no prompt', async () => {
    const { headers } = await ask(server.url, { messages: [{ role: 'user', content: 'a secret sentence' }], max_tokens: 2 })
    const id = headers.get('x-request-id')!
    const lines = server.log.filter((line) => line.includes(id)).map((line) => JSON.parse(line))
    assert.ok(lines.some(({ msg, status }) => msg === 'request' && status === 200))
    assert.ok(!server.log.join('').includes('secret sentence'))
  })
})
