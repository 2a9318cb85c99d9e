package ai.nasedge.example

import android.graphics.Bitmap

/** What the model says of an upright image: real values, the batch left out. */
fun EdgeModel.run(bitmap: Bitmap): FloatArray {
    val argb = IntArray(bitmap.width * bitmap.height)
    bitmap.getPixels(argb, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
    return run(ModelFacts.preprocessing().apply(argb, bitmap.width, bitmap.height))
}
