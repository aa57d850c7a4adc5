import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import type { Issues } from '../../lib/error.js'
import type { TokenNames } from './added-tokens.js'
import { compileTemplate } from './chat-template.js'
import type { Messages } from './messages.js'

const IMAGE_MESSAGE: Messages = [{ role: 'user', content: [{ type: 'image' }, { type: 'text', text: 'x' }] }]

const quote = (text: string): string => JSON.stringify(text)

/**
 * Jinja statements that replace the contents that are lists by texts: an image by its placeholder and a line break, a video likewise, and
 * texts as they are. They print nothing.
 */
const contentsAsText = (image: string, video: string): string =>
  [
    '{%- set visual = namespace(messages=[]) -%}',
    '{%- for message in messages -%}',
    "{%- if message['content'] is string or not message['content'] -%}",
    '{%- set visual.messages = visual.messages + [message] -%}',
    '{%- else -%}',
    "{%- set visual.text = '' -%}",
    "{%- for content in message['content'] -%}",
    `{%- if content['type'] == 'image' -%}{%- set visual.text = visual.text + ${quote(`${image}\n`)} -%}`,
    `{%- elif content['type'] == 'video' -%}{%- set visual.text = visual.text + ${quote(`${video}\n`)} -%}`,
    "{%- elif content['type'] == 'text' -%}{%- set visual.text = visual.text + content['text'] -%}{%- endif -%}",
    '{%- endfor -%}',
    '{%- set visual.messages = visual.messages + [dict(message, content=visual.text)] -%}',
    '{%- endif -%}',
    '{%- endfor -%}',
    '{%- set messages = visual.messages -%}',
    "{{- '' }}" // a block would drop a line break after it
  ].join('')

/**
 * A language model's chat template that also renders images and videos, as the placeholders `image` and `video` with a line break. Messages
 * without them are rendered as before. A template that renders images already is returned unchanged. Errors: no Jinja template.
 */
export const imageTemplate = (
  source: string,
  image: string,
  video: string,
  names: TokenNames,
  file: string
): E.Either<Issues, string> =>
  pipe(
    compileTemplate(source, names, file),
    E.map((template) => {
      const rendered = template.render(IMAGE_MESSAGE, [])
      return E.isRight(rendered) && rendered.right.text.includes(image) ? source : contentsAsText(image, video) + source
    })
  )
