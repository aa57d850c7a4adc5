import assert from 'node:assert/strict'
import { z } from 'zod'
import { answer } from '../../../generation/answer.js'
import { chat } from '../../../generation/chat/chat.js'
import { type InternVLCheckpoint, load } from '../../../generation/checkpoint/load.js'
import { rngOf } from '../../../generation/decoding/sampling.js'
import { type CompiledGrammar, compileGrammar } from '../../../generation/structured/compiled-grammar.js'
import { grammarText, type ResponseFormat } from '../../../generation/structured/response-format.js'
import { maskLogits, responseConstraint } from '../../../generation/structured/response-processor.js'

describe('response format', () => {
  let internvl: InternVLCheckpoint
  before(async () => {
    internvl = await load()
  })
  after(() => internvl.dispose())

  const vocabulary = () => ({
    tokenizer: internvl.processor.tokenizer,
    vocabSize: internvl.config.textConfig.vocabSize,
    eosTokenIds: internvl.generation.eosTokenIds ?? []
  })
  const compile = (format: ResponseFormat, timeout?: number) => compileGrammar(grammarText(format), vocabulary(), timeout)
  const allowed = (grammar: CompiledGrammar, ids: readonly number[]): readonly number[] => {
    const words = grammar.allowedAfter(ids)
    return Array.from({ length: vocabulary().vocabSize }, (_, id) => id).filter((id) => words[id >> 5]! & (1 << (id & 31)))
  }
  const isEnd = (id: number): boolean => vocabulary().eosTokenIds.includes(id)

  /** The text of random allowed tokens up to the end token; the end token is taken as soon as it is allowed after `length` tokens. */
  const randomText = (grammar: CompiledGrammar, seed: number, length: number): string | undefined => {
    let rng = rngOf(seed)
    const ids: number[] = []
    while (ids.length < 300) {
      const tokens = allowed(grammar, ids)
      assert.ok(tokens.length > 0, 'no token is allowed')
      const end = tokens.find(isEnd)
      const others = tokens.filter((id) => !isEnd(id))
      if (end !== undefined && (ids.length >= length || others.length === 0)) return internvl.processor.decode(ids)
      rng = rng.foldIn([ids.length])
      ids.push(others[Math.floor(rng.uniform() * others.length)]!)
    }
    return undefined
  }

  const answerOf = z.object({
    colour: z.enum(['red', 'blue', 'grün']),
    corners: z.array(z.int().min(0).max(99)).min(1).max(3),
    inside: z.union([z.boolean(), z.null()]),
    note: z.string().max(6).optional()
  })
  const fitsBounds = ({ minimum, maximum }: { readonly minimum?: number; readonly maximum?: number }, x: unknown): boolean =>
    minimum === undefined || (typeof x === 'number' && x >= minimum && x <= maximum!)
  const cases: readonly (readonly [name: string, format: ResponseFormat, fits: (text: string) => boolean])[] = [
    // bytes that are no character are replaced when the text is decoded, so lengths differ
    [
      'a zod schema',
      { schema: answerOf },
      (text) => answerOf.extend({ note: z.string().optional() }).safeParse(JSON.parse(text)).success
    ],
    [
      'a JSON schema',
      {
        schema: {
          $defs: { point: { type: 'object', properties: { x: { type: 'integer' } }, required: ['x'] } },
          type: 'array',
          items: { $ref: '#/$defs/point' },
          maxItems: 2
        }
      },
      (text) =>
        z
          .array(z.strictObject({ x: z.number() }))
          .max(2)
          .safeParse(JSON.parse(text)).success
    ],
    ...[
      { type: 'object', properties: { x: { type: 'string', pattern: '^a.*$' } }, required: ['x'] },
      { type: 'object', properties: { x: { type: 'string', pattern: '^[^x]*\\s?$' } }, required: ['x'] },
      { type: 'object', properties: { x: { type: 'string', minLength: 2 } }, required: ['x'] },
      { type: 'object', properties: { x: { type: 'number', minimum: 0.5, maximum: 2.5 } }, required: ['x'] },
      { type: 'object', properties: { x: { enum: ['"\n', { y: [1, 2] }] } }, required: ['x'] }
    ].map(
      (schema) =>
        [
          JSON.stringify(schema.properties.x),
          { schema },
          (text: string) => Object.keys(JSON.parse(text)).join() === 'x' && fitsBounds(schema.properties.x, JSON.parse(text).x)
        ] as const
    ),
    ['a regular expression', { regex: '(yes|no), [0-9]{2}(é|日)?' }, (text) => /^(yes|no), [0-9]{2}(é|日)?$/.test(text)],
    ['a grammar', { grammar: 'root ::= "<" root ">" | [a-c] | "<|im_end|>"' }, (text) => /^<*([a-c]|<\|im_end\|>)>*$/.test(text)],
    ['a choice', { choice: ['red.', 'a (blue) circle', 'x|y'] }, (text) => ['red.', 'a (blue) circle', 'x|y'].includes(text)]
  ]
  for (const [name, format, fits] of cases)
    it(`every text that ${name} lets end fits, for any tokens`, async () => {
      const grammar = await compile(format)
      try {
        const texts = Array.from({ length: 12 }, (_, seed) => randomText(grammar, seed, seed * 4)).filter(
          (text) => text !== undefined
        )
        assert.ok(texts.length > 0, 'no text has ended')
        for (const text of texts) assert.ok(fits(text), text)
      } finally {
        grammar.dispose()
      }
    })

  it('json: an object, never another value; a text that ends parses', async () => {
    const grammar = await compile('json')
    const first = allowed(grammar, []).map((id) => internvl.processor.decode([id]))
    assert.ok(first.length > 0 && first.every((text) => text.startsWith('{')))
    const { idOf } = internvl.processor.tokenizer
    const ids = ['{', '"', 'a', '"', ':', 'Ġ', '1', '}'].map((token) => idOf(token)!)
    assert.ok(allowed(grammar, ids).some(isEnd))
    assert.ok(!allowed(grammar, ids.slice(0, -1)).some(isEnd))
    grammar.dispose()
  })

  it('special tokens are never allowed, but the end token of a complete text', async () => {
    const grammar = await compile({ regex: '.{0,40}' })
    const special = allowed(grammar, []).filter((id) => internvl.processor.tokenizer.isSpecial(id))
    assert.ok(special.every(isEnd) && special.length > 0)
    grammar.dispose()
  })

  it('rows that take turns have the masks that each has alone', async () => {
    const grammar = await compile({ regex: 'a+b|ba+' })
    const [a, b] = ['a', 'b'].map((token) => internvl.processor.tokenizer.idOf(token)!) as [number, number]
    const rows = [
      [a, a, a],
      [b, a, a],
      [a, b]
    ] as const
    const alone = rows.map((row) => row.map((_, n) => allowed(grammar, row.slice(0, n + 1))))
    const together = rows.map(() => [] as (readonly number[])[])
    for (let n = 1; n <= 3; n++)
      for (const [i, row] of rows.entries()) if (row.length >= n) together[i]!.push(allowed(grammar, row.slice(0, n)))
    assert.deepEqual(together, alone)
    assert.throws(() => grammar.allowedAfter([b, b]), /do not fit the format/)
    grammar.dispose()
  })

  it('masked logits: allowed tokens keep theirs; if another option forbids all of them, they are equal', () => {
    const words = Int32Array.of(0b0110)
    const low = Number.NEGATIVE_INFINITY
    assert.deepEqual([...maskLogits(Float32Array.of(1, 2, 3, 4), words)], [low, 2, 3, low])
    assert.deepEqual([...maskLogits(Float32Array.of(1, low, low, 4), words)], [low, 0, 0, low])
  })

  it('a format that is wrong is a RangeError with the reason, and the next one works', async () => {
    const wrong: readonly (readonly [unknown, RegExp])[] = [
      [{ regex: '(a' }, /parenthesis is not closed/],
      [{ grammar: 'root ::= missing' }, /"missing" is not defined/],
      [{ schema: { type: 'frob' } }, /Unsupported type "frob"/],
      [{ schema: z.string().transform(Number).pipe(z.number()).or(z.bigint()) }, /no JSON schema/],
      [{ choice: [] }, /list of choices/],
      [{ regex: 'a', grammar: 'b' }, /expected 'json', or one of/],
      ['xml', /expected 'json', or one of/],
      [{ regex: 'a'.repeat(200_001) }, /more than the limit of 200000/]
    ]
    for (const [format, message] of wrong)
      await assert.rejects(responseConstraint(internvl, format as ResponseFormat), { name: 'RangeError', message })
    const { release } = await responseConstraint(internvl, { regex: 'a' })
    release()
  })

  it('a pattern with a character that JSON must escape is an error, not wrong JSON', async () => {
    const responseFormat = { schema: { type: 'string', pattern: '^"b$' } }
    const message = [{ role: 'user', content: 'x' }] as const
    await assert.rejects(answer(internvl, [message], { maxNewTokens: 9, responseFormat }), /no token can follow/)
  })

  it('a grammar that needs too long is refused, and its thread ends', async () => {
    await assert.rejects(compile({ regex: 'a' }, 1), /takes longer than 0.001 s/)
  })

  it('a mask that takes too long fails its answer alone: the next answer compiles the grammar again', async () => {
    const { wait } = Atomics
    const masked = async () => {
      const { processors, release } = await responseConstraint(internvl, { regex: 'late+' })
      try {
        return processors[0]!([1], new Float32Array(vocabulary().vocabSize), 1)
      } finally {
        release()
      }
    }
    Object.assign(Atomics, { wait: () => 'timed-out' })
    const failed = masked()
    await assert.rejects(failed, /takes too long for a token/).finally(() => Object.assign(Atomics, { wait }))
    assert.ok((await masked()).some((logit) => logit === 0))
  })

  it('answer and chat: each answer parses, with samples and beams too', async () => {
    const messages = [{ role: 'user', content: 'What is this?' }] as const
    const schema = z.object({ colour: z.enum(['red', 'blue']), n: z.int().min(0).max(9) })
    const settings = [{}, { doSample: true, numReturnSequences: 3, seed: 1, temperature: 2 }, { numBeams: 2 }]
    for (const options of settings) {
      const { texts } = await answer(internvl, [messages], { maxNewTokens: 64, responseFormat: { schema }, ...options })
      for (const text of texts) assert.ok(schema.safeParse(JSON.parse(text)).success, text)
    }
    const session = chat(internvl, { maxNewTokens: 64, responseFormat: { schema } })
    assert.ok(schema.safeParse(JSON.parse((await session.ask('What is this?')).text)).success)
    session.dispose()
  })
})
