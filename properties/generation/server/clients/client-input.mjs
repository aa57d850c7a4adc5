// Input of the client scripts: JSON in the environment.
export const input = JSON.parse(process.env.CLIENT_INPUT)

/** A question about the image. */
export const question = (text) => ({
  role: 'user',
  content: [
    { type: 'image_url', image_url: { url: input.image } },
    { type: 'text', text }
  ]
})

export const messages = [question(input.question)]

export const parameters = {
  type: 'object',
  properties: { colour: { type: 'string', enum: ['red', 'blue'] } },
  required: ['colour'],
  additionalProperties: false
}

export const tools = [{ type: 'function', function: { name: 'paint', description: 'Paints the image.', parameters } }]

/** Whether the arguments of a call are those of the tool. */
export const colour = (json) => ['red', 'blue'].includes((typeof json === 'string' ? JSON.parse(json) : json).colour)
