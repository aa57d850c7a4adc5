import { z } from '@hono/zod-openapi'
import { explainMethods } from '../../explain/methods.js'

const url = z
  .string()
  .regex(/^(data:|https?:\/\/)/i, 'Expected a data URL, or a URL that begins with https:// or http://')
  .openapi({ description: 'A data URL, or an https URL of an allowed domain.' })

const detail = z
  .enum(['auto', 'low', 'high', 'original'])
  .nullish()
  .openapi({ description: 'low: one tile; the same for all images.' })

const textPart = z.object({ type: z.literal('text'), text: z.string() })
const imagePart = z.object({
  type: z.literal('image_url'),
  image_url: z.union([z.object({ url, detail }), url])
})
const inputImagePart = z.object({ type: z.literal('input_image'), image_url: z.union([z.object({ url, detail }), url]), detail })
const inputTextPart = z.object({ type: z.literal('input_text'), text: z.string() })
/** A part of the assistant's messages. */
const refusalPart = z.object({ type: z.literal('refusal'), refusal: z.string() })
const videoPart = z.object({ type: z.literal('video_url'), video_url: z.union([z.object({ url }), url]) })

/** A part of a message's content. */
const contentPart = z.discriminatedUnion('type', [textPart, imagePart, inputImagePart, inputTextPart, videoPart, refusalPart], {
  error: ({ input }) => {
    const type = (input as { readonly type?: unknown } | undefined)?.type
    return `Expected a part of type "text", "image_url", "input_image" or "video_url", got ${JSON.stringify(type) ?? 'none'}`
  }
})
export type ContentPart = z.infer<typeof contentPart>

const content = z.union([z.string(), z.array(contentPart)], {
  error: ({ input }) => `Expected a text or a list of parts, got ${input === null ? 'null' : typeof input}`
})

const toolCall = z.object({
  id: z.string().optional(),
  type: z.literal('function').default('function'),
  function: z.object({ name: z.string(), arguments: z.string() })
})

/** A message of a conversation. */
const chatMessage = z.discriminatedUnion('role', [
  z.object({ role: z.enum(['system', 'developer']), content, name: z.string().optional() }),
  z.object({ role: z.literal('user'), content, name: z.string().optional() }),
  z.object({
    role: z.literal('assistant'),
    content: content.nullish(),
    name: z.string().optional(),
    tool_calls: z.array(toolCall).nullish()
  }),
  z.object({ role: z.literal('tool'), content, tool_call_id: z.string(), name: z.string().optional() })
])
export type ChatMessage = z.infer<typeof chatMessage>

const jsonSchema = z.record(z.string(), z.unknown())

export const tool = z.object({
  type: z.literal('function'),
  function: z.object({
    name: z.string().regex(/^[\w.-]{1,64}$/, 'Expected 1 to 64 letters, digits, _, - or .'),
    description: z.string().optional(),
    parameters: jsonSchema.nullish(),
    strict: z.boolean().nullish()
  })
})
export type Tool = z.infer<typeof tool>

const toolChoice = z.union([
  z.enum(['none', 'auto', 'required']),
  z.object({ type: z.literal('function'), function: z.object({ name: z.string() }) })
])

const responseFormat = z.discriminatedUnion('type', [
  z.object({ type: z.literal('text') }),
  z.object({ type: z.literal('json_object') }),
  z.object({
    type: z.literal('json_schema'),
    json_schema: z.object({
      name: z.string().optional(),
      description: z.string().optional(),
      schema: jsonSchema,
      strict: z.boolean().nullish()
    })
  })
])

const count = (max: number) => z.int().min(1).max(max).nullish()
const penalty = z.number().min(-2).max(2).nullish()

/** The body of `POST /v1/chat/completions`. Fields that the schema does not name are ignored. */
export const chatRequest = z
  .object({
    model: z.string().nullish(),
    messages: z.array(chatMessage).min(1),
    stream: z.boolean().nullish(),
    stream_options: z.object({ include_usage: z.boolean().nullish() }).nullish(),
    n: count(64).openapi({ description: 'Number of answers.' }),
    max_tokens: count(1_000_000),
    max_completion_tokens: count(1_000_000),
    min_tokens: z
      .int()
      .min(0)
      .max(1_000_000)
      .nullish()
      .openapi({ description: 'Tokens before which the answer cannot end by itself.' }),
    ignore_eos: z.boolean().nullish().openapi({ description: 'true: the answer ends at max_tokens alone, or at a stop string.' }),
    temperature: z.number().min(0).max(2).nullish(),
    top_p: z.number().min(0).max(1).nullish().openapi({ description: '0: always the most probable token.' }),
    top_k: z.int().min(-1).nullish().openapi({ description: '0 or -1: all tokens.' }),
    min_p: z.number().min(0).max(1).nullish(),
    seed: z.number().refine(Number.isInteger, 'Expected an integer').nullish(),
    stop: z.union([z.string().min(1), z.array(z.string().min(1)).max(16)]).nullish(),
    logprobs: z.boolean().nullish(),
    top_logprobs: z.int().min(0).max(20).nullish(),
    logit_bias: z.record(z.string().regex(/^\d+$/, 'Expected token ids as keys'), z.number().min(-100).max(100)).nullish(),
    presence_penalty: penalty,
    frequency_penalty: penalty,
    repetition_penalty: z.number().gt(0).max(100).nullish(),
    num_beams: count(64),
    max_patches: count(1024).openapi({ description: 'Largest number of tiles of an image.' }),
    num_frames: count(4000).openapi({ description: 'Frames sampled from a video.' }),
    fps: z.number().gt(0).max(1000).nullish(),
    response_format: responseFormat.nullish(),
    guided_json: jsonSchema.nullish(),
    guided_regex: z.string().min(1).nullish(),
    guided_grammar: z.string().min(1).nullish().openapi({ description: 'EBNF with the rule root.' }),
    guided_choice: z.array(z.string().min(1)).min(1).nullish(),
    tools: z.array(tool).nullish(),
    tool_choice: toolChoice.nullish(),
    parallel_tool_calls: z.boolean().nullish(),
    chat_template_kwargs: z
      .record(z.string(), z.union([z.boolean(), z.number(), z.null()]))
      .nullish()
      .openapi({ description: 'Variables of the chat template, such as enable_thinking.' }),
    skip_special_tokens: z
      .boolean()
      .nullish()
      .openapi({ description: 'false: the text has special tokens, such as <ref> and <box> of boxes.' }),
    add_generation_prompt: z.boolean().nullish(),
    continue_final_message: z.boolean().nullish(),
    functions: z.null({ error: 'Not supported; use tools' }).optional(),
    function_call: z.null({ error: 'Not supported; use tool_choice' }).optional(),
    audio: z.null({ error: 'Audio is not supported' }).optional(),
    modalities: z.array(z.literal('text', { error: 'Only text is generated' })).nullish()
  })
  .openapi('ChatRequest')
export type ChatRequest = z.infer<typeof chatRequest>

/** The body of `POST /tiles`: the fields of a chat request that tiles depend on. */
export const tilesRequest = chatRequest
  .pick({ model: true, messages: true, max_patches: true, num_frames: true, fps: true })
  .openapi('TilesRequest')

/** The body of `POST /v1/explain`: a conversation with an image, and how to explain the answer. */
export const explainRequest = chatRequest
  .pick({ model: true, messages: true, max_patches: true, stream: true })
  .extend({
    method: z.enum(explainMethods).nullish(),
    token: z
      .union([z.string().min(1).max(256), z.number().int()])
      .nullish()
      .openapi({ description: 'A word of the answer, or the index of a token; all words by default.' }),
    by: z.enum(['word', 'token']).nullish(),
    image: z.number().int().min(0).nullish().openapi({ description: 'Index of the image; 0 by default.' }),
    answer: z.string().min(1).max(4096).nullish().openapi({ description: "Explain this answer instead of the model's." }),
    cells: count(32),
    steps: count(64)
  })
  .openapi('ExplainRequest')

/** The body of `POST /v1/embeddings`. */
export const embeddingsRequest = z
  .object({
    model: z.string().nullish(),
    input: z
      .union([url, z.array(url).min(1).max(256)])
      .openapi({ description: 'Images: data URLs, or https URLs of allowed domains.' }),
    encoding_format: z.enum(['float', 'base64']).nullish(),
    max_patches: count(1024)
  })
  .openapi('EmbeddingsRequest')

/** The body of `POST /tokenize`: a conversation, or a text. */
export const tokenizeRequest = z
  .object({
    model: z.string().nullish(),
    messages: z.array(chatMessage).min(1).optional(),
    prompt: z.string().optional(),
    tools: z.array(tool).nullish(),
    max_patches: count(1024)
  })
  .refine(({ messages, prompt }) => (messages === undefined) !== (prompt === undefined), {
    error: 'Expected either messages or prompt',
    path: ['messages']
  })
  .openapi('TokenizeRequest')

export const detokenizeRequest = z
  .object({
    model: z.string().nullish(),
    tokens: z
      .array(
        z
          .int()
          .min(0)
          .max(2 ** 31 - 1)
      )
      .max(1_000_000)
  })
  .openapi('DetokenizeRequest')
