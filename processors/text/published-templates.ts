/** System prompt of a conversation template, and the texts before and after each turn. */
interface Style {
  readonly head: string
  readonly system: string
  readonly user: string
  /** Header of the turn that the model generates, and of an earlier answer. */
  readonly generation: string
  readonly answer: string
  readonly end: string
  /** Text after an answer, and after a final message that is an answer. */
  readonly answerEnd: string
  readonly lastEnd: string
}

const CHINESE = '你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。'
const CHINESE_2_5 = '你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。'
const GPT_OSS = `You are InternVL, a large language model trained by Shanghai AI Laboratory.
Knowledge cutoff: 2024-06
Current date: 2025-08-06

Reasoning: low

# Valid channels: final. Channel must be included for every message.`

const ends = (end: string, answerEnd = end, lastEnd = answerEnd) => ({ end, answerEnd, lastEnd })
const turns = (user: string, generation: string, answer = generation) => ({ user, generation, answer })
const CHAT_ML = { head: '<|im_start|>system\n', ...turns('<|im_start|>user\n', '<|im_start|>assistant\n') }
const FINAL = '<|start|>assistant<|channel|>final<|message|>'

const INTERNVL_2_5 = { ...CHAT_ML, system: CHINESE_2_5, ...ends('<|im_end|>\n') }

// Source: `conv_templates` (OpenGVLab/InternVL, internvl/conversation.py; InternVL-U for qwen2_5-chat-v3; internvl_chat_gpt_oss for the last)
const STYLES: Readonly<Record<string, Style>> = {
  internvl_zh: { head: '', system: '', ...turns('<human>: ', '<bot>:', '<bot>: '), ...ends(' ', '</s>') },
  'Hermes-2': { ...CHAT_ML, system: CHINESE, ...ends('<|im_end|>') },
  'internlm2-chat': { ...CHAT_ML, system: CHINESE, ...ends('<|im_end|>') },
  'phi3-chat': { head: '<|system|>\n', system: CHINESE, ...turns('<|user|>\n', '<|assistant|>\n'), ...ends('<|end|>') },
  internvl2_5: INTERNVL_2_5,
  'qwen2_5-chat-v3': INTERNVL_2_5,
  internvl3_5_gpt_oss: {
    head: '<|start|>system<|message|>',
    system: GPT_OSS,
    ...turns('<|start|>user<|message|>', '<|start|>assistant', FINAL),
    ...ends('<|end|>', '<|end|>', '<|return|>')
  }
}

const quote = (text: string): string => JSON.stringify(text)

/** Jinja source for the texts and placeholders of a message. */
const contentOf = (image: string, video: string): string =>
  "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}" +
  `{% if content['type'] == 'image' %}{{ ${quote(`${image}\n`)} }}{% elif content['type'] == 'video' %}{{ ${quote(`${video}\n`)} }}` +
  "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"

// OpenGVLab's layout has conversation templates in Python code; this is their Jinja equivalent
const jinja = ({ head, system, user, generation, answer, ...style }: Style, image: string, video: string): string => {
  const content = contentOf(image, video)
  const answerEnd = `(${quote(style.lastEnd)} if loop.last else ${quote(style.answerEnd)})`
  return (
    `{% if messages[0]['role'] != 'system' %}{{ ${quote(head + system + style.end)} }}{% endif %}{% for message in messages %}` +
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}" +
    "{{ raise_exception('this conversation template has no role ' + message['role'] + ', only system, user and assistant') }}{% endif %}" +
    `{{ {'system': ${quote(head)}, 'user': ${quote(user)}, 'assistant': ${quote(answer)}}[message['role']] }}${content}` +
    `{{ ${answerEnd} if message['role'] == 'assistant' else ${quote(style.end)} }}{% endfor %}` +
    `{% if add_generation_prompt %}{{ ${quote(generation)} }}{% endif %}`
  )
}

/**
 * Jinja source of the conversation template that config.json's `template` names in OpenGVLab's layout; `image` and `video` are
 * the placeholder texts. A system message replaces the template's system prompt.
 */
export const originalTemplate = (name: unknown, image: string, video: string): string | undefined => {
  const style = typeof name === 'string' && Object.hasOwn(STYLES, name) ? STYLES[name] : undefined
  return style && jinja(style, image, video)
}

/** The chat template of the published `-hf` checkpoints: ChatML without a system prompt. Source: OpenGVLab/InternVL3-1B-hf. */
export const publishedTemplate = (image: string, video: string): string =>
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}" +
  `${contentOf(image, video)}{{ '<|im_end|>\\n' }}{% endfor %}` +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
